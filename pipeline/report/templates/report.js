"use strict";
// Pages work without this: links lead to the videos. With it they play in a dialog, and bars tell their numbers.
(() => {
  const shots = [...document.querySelectorAll("a[data-video]")];
  const dialog = document.getElementById("player");
  const video = dialog.querySelector("video");
  const title = dialog.querySelector("h2");
  const problem = dialog.querySelector(".problem");
  let at = -1;
  let opener = null;

  const show = (index) => {
    at = (index + shots.length) % shots.length;
    const shot = shots[at];
    title.textContent = shot.dataset.video;
    problem.hidden = true;
    video.src = shot.getAttribute("href");
    video.play().catch(() => {});
  };
  video.addEventListener("error", () => {
    if (video.getAttribute("src")) {
      problem.textContent = `The video can't be loaded from here: ${video.getAttribute("src")}`;
      problem.hidden = false;
    }
  });
  dialog.addEventListener("close", () => {
    video.pause();
    video.removeAttribute("src");
    video.load();
    if (opener) opener.focus();
  });
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.querySelector(".previous").addEventListener("click", () => show(at - 1));
  dialog.querySelector(".next").addEventListener("click", () => show(at + 1));
  shots.forEach((shot, index) =>
    shot.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
      event.preventDefault();
      opener = shot;
      dialog.showModal();
      show(index);
    })
  );

  for (const mark of document.querySelectorAll(".chart .role-mark [aria-label]")) {
    const tip = document.createElementNS("http://www.w3.org/2000/svg", "title");
    tip.textContent = mark.getAttribute("aria-label");
    mark.append(tip);
  }
})();
