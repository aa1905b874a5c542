"""How fast everything is: the networks, reading and writing of media, and the whole pipeline against its parts."""
