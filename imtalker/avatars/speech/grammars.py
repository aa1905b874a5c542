"""Small grammars whose sentences cover the sounds of their language."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grammar:
    """Sentence ``patterns`` with slots in braces, and the ``fillers`` of each slot."""

    patterns: tuple[str, ...]
    fillers: dict[str, tuple[str, ...]]


def _list(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split("|"))


GRAMMARS: dict[str, Grammar] = {
    "en": Grammar(
        _list(
            """
            {who} {does} {what} {where}. | {when}, {who} {does} {what}. | Why does everybody say that {who} {does}
            {what}? | Please, {ask} {where}, and {ask}! | I believe {who} {does} {what}, but nobody {knows} it. |
            {when}, {where}, {who} {does} {what}; how {how}! | Nobody {knows} it: {what} and {what}. | {what}? No,
            {what}.
            """
        ),
        {
            "who": _list(
                """
                my father | the young painter | a good boy | our teacher | Joy's mother | the happy baker | Bob | a
                blue bird | the chief of police | her favourite uncle | the judge | your neighbour Thomas | Mia |
                every child
                """
            ),
            "does": _list(
                """
                finds | moves | has bought | will watch | might choose | never forgets | just paints | wants to
                catch | would rather give away | opens | keeps | measures | may borrow | throws
                """
            ),
            "what": _list(
                """
                five yellow boats | a very thick book | the vision of a better world | fresh bread and butter | some
                huge blue shoes | the church by the bridge | a cup of warm milk | both of these boys | a small
                orange bowl | the purple mushrooms | good food | a pair of brown gloves | the whole truth | cheap
                cheese | my pajamas
                """
            ),
            "where": _list(
                """
                by the river | over there | behind the big house | in the valley | on a wooden table | above the
                shop | near the beach | under the old oak | at the zoo | beneath the moon
                """
            ),
            "when": _list(
                """
                In the morning | On Thursday | At about four o'clock | Before the show | Every few weeks | Today |
                This evening | Five minutes ago | Usually | In March
                """
            ),
            "ask": _list(
                """
                bring me the map | push the button | wait for us | open your mouth | have a look | show them how |
                move over | think about both | put it away | choose your weapon
                """
            ),
            "knows": _list("knew about | remembers | would believe | has ever mentioned | enjoyed"),
            "how": _list("beautiful | awful | very odd | amazing | far away | cool"),
        },
    ),
    "de": Grammar(
        _list(
            """
            {who} {does} {where} {what}. | {when} {does} {who} {what}. | Warum {does} {who} {what}? | Bitte, {ask},
            und {ask}! | Ich glaube, {when} {does} {who} {what}. | {what}? Nein, {what}. | Übrigens: {who} {does}
            {what}, aber niemand weiß es.
            """
        ),
        {
            "who": _list(
                """
                mein Vater | die junge Malerin | der Bäcker | unsere Lehrerin | ein böser Wolf | Frau Müller | der
                kleine Junge | die Königin | mein Onkel Jürgen | jeder Freund | der Chef | Peter
                """
            ),
            "does": _list(
                """
                findet | sucht | kauft | öffnet | vergisst | zeichnet | bewegt | prüft | liebt | wäscht | zählt |
                hört
                """
            ),
            "what": _list(
                """
                fünf gelbe Boote | zwölf Äpfel | das dicke Buch | schöne Schuhe | den großen Pfirsich | viele bunte
                Blumen | ein Stück Käse | warme Milch und Brot | die lange Brücke | neue Häuser | einen Pfannkuchen
                | das Gemüse | die Zeitung | eine weiche Mütze
                """
            ),
            "where": _list(
                """
                am Fluss | hinter dem Haus | im Garten | auf dem Tisch | über der Küche | bei uns | in München |
                unter dem Baum | vor der Kirche | auf dem Bahnhof
                """
            ),
            "when": _list(
                """
                heute | am Morgen | jeden Donnerstag | um vier Uhr | im Juli | manchmal | vor dem Frühstück |
                übermorgen | nach der Schule
                """
            ),
            "ask": _list(
                """
                bring mir die Mappe | mach das Fenster auf | warte auf uns | komm herüber | pass auf | hör gut zu |
                probier die Suppe | ruf mich an
                """
            ),
        },
    ),
    "fr": Grammar(
        _list(
            """
            {who} {does} {what} {where}. | {when}, {who} {does} {what}. | Pourquoi {who} {does} {what} ? | S'il vous
            plaît, {ask} et {ask} ! | Je crois que {who} {does} {what}. | {what} ? Non, {what}. | {when}, {where},
            {who} {does} {what} ; quelle surprise !
            """
        ),
        {
            "who": _list(
                """
                mon père | la jeune fille | un bon ami | notre voisin | le boulanger | la reine | ma sœur | le petit
                garçon | le chef | Juliette | un oiseau bleu | l'oncle Guillaume
                """
            ),
            "does": _list(
                """
                trouve | cherche | achète | ouvre | oublie | peint | veut | préfère | change | mange | lave | mesure
                """
            ),
            "what": _list(
                """
                un bon vin blanc | huit pommes | le pain et le beurre | une belle maison | des chaussures rouges |
                la moitié du gâteau | un parfum | le feu | cinq bateaux jaunes | une vieille voiture | du fromage |
                des champignons | le journal
                """
            ),
            "where": _list(
                """
                au bord de la mer | sous le pont | dans la montagne | chez nous | devant l'église | sur la table |
                derrière le mur | à Lyon | au jardin
                """
            ),
            "when": _list(
                """
                ce matin | aujourd'hui | jeudi | en juin | à huit heures | avant le dîner | souvent | demain soir
                """
            ),
            "ask": _list(
                """
                ouvrez la bouche | apportez la carte | venez avec moi | attendez un peu | fermez la porte | goûtez
                la soupe | regardez là-bas | bougez les bras
                """
            ),
        },
    ),
    "es": Grammar(
        _list(
            """
            {who} {does} {what} {where}. | {when}, {who} {does} {what}. | ¿Por qué {who} {does} {what}? | Por favor,
            {ask} y {ask}. | Creo que {who} {does} {what}. | ¿{what}? No, {what}.
            """
        ),
        {
            "who": _list(
                """
                mi padre | la niña | un buen amigo | nuestro vecino | el panadero | la reina | Jorge | el jefe | mi
                hermana | un pájaro azul | el perro | la abuela
                """
            ),
            "does": _list(
                """
                busca | encuentra | compra | abre | olvida | pinta | quiere | mueve | lava | elige | guarda | lleva
                """
            ),
            "what": _list(
                """
                cinco barcos amarillos | una guitarra vieja | el pan y el queso | un vaso de agua | muchas flores |
                zapatos nuevos | la mitad del pastel | una bufanda | el libro rojo | ocho huevos | la llave | un
                caballo blanco
                """
            ),
            "where": _list(
                """
                en la playa | bajo el puente | en la montaña | cerca del río | sobre la mesa | en Bilbao | delante
                de la iglesia | en el jardín
                """
            ),
            "when": _list(
                """
                hoy | mañana | el jueves | en julio | a las ocho | antes de comer | a veces | por la noche
                """
            ),
            "ask": _list(
                """
                abre la boca | trae el mapa | ven conmigo | espera un poco | cierra la puerta | prueba la sopa |
                mueve los brazos | llama a mamá
                """
            ),
        },
    ),
    "it": Grammar(
        _list(
            """
            {who} {does} {what} {where}. | {when}, {who} {does} {what}. | Perché {who} {does} {what}? | Per favore,
            {ask} e {ask}! | Credo che sia vero: {who} {does} {what}. | {what}? No, {what}.
            """
        ),
        {
            "who": _list(
                """
                mio padre | la ragazza | un buon amico | la nostra vicina | il panettiere | la regina | Giuseppe |
                il capo | mia zia | un uccello blu | il gatto | ogni bambino
                """
            ),
            "does": _list(
                """
                cerca | trova | compra | apre | dimentica | dipinge | vuole | muove | lava | sceglie | porta |
                guarda
                """
            ),
            "what": _list(
                """
                cinque barche gialle | una vecchia chitarra | il pane e il burro | un bicchiere d'acqua | molti
                fiori | le scarpe nuove | gli gnocchi | una sciarpa | il libro rosso | otto uova | la chiave | un
                cavallo bianco | la pizza
                """
            ),
            "where": _list(
                """
                sulla spiaggia | sotto il ponte | in montagna | vicino al fiume | sul tavolo | a Bologna | davanti
                alla chiesa | nel giardino
                """
            ),
            "when": _list(
                """
                oggi | domani | giovedì | a luglio | alle otto | prima di cena | qualche volta | di sera
                """
            ),
            "ask": _list(
                """
                apri la bocca | portami la mappa | vieni con me | aspetta un po' | chiudi la porta | prova la zuppa
                | muovi le braccia | chiama la mamma
                """
            ),
        },
    ),
    "pt": Grammar(
        _list(
            """
            {who} {does} {what} {where}. | {when}, {who} {does} {what}. | Por que {who} {does} {what}? | Por favor,
            {ask} e {ask}! | Acho que {who} {does} {what}. | {what}? Não, {what}.
            """
        ),
        {
            "who": _list(
                """
                o meu pai | a menina | um bom amigo | o nosso vizinho | o padeiro | a rainha | João | o chefe | a
                minha irmã | um pássaro azul | o cão | a avó
                """
            ),
            "does": _list(
                """
                procura | encontra | compra | abre | esquece | pinta | quer | move | lava | escolhe | guarda | leva
                """
            ),
            "what": _list(
                """
                cinco barcos amarelos | uma guitarra velha | o pão e o queijo | um copo de água | muitas flores |
                sapatos novos | metade do bolo | o coração | o livro vermelho | oito ovos | a chave | um cavalo
                branco | maçãs e limões
                """
            ),
            "where": _list(
                """
                na praia | debaixo da ponte | na montanha | perto do rio | em cima da mesa | em Lisboa | diante da
                igreja | no jardim
                """
            ),
            "when": _list(
                """
                hoje | amanhã | na quinta-feira | em julho | às oito | antes do jantar | às vezes | de noite
                """
            ),
            "ask": _list(
                """
                abre a boca | traz o mapa | vem comigo | espera um pouco | fecha a porta | prova a sopa | mexe os
                braços | chama a mamã
                """
            ),
        },
    ),
}
"""By language."""
