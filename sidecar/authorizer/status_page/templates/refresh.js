"use strict";
(() => {
  const seconds = 10;
  const live = document.getElementById("live");
  let failed = 0;
  const say = (text, bad) => {
    const line = document.getElementById("live");
    line.textContent = text;
    line.classList.toggle("stale", bad);
  };
  const swap = (fresh) => {
    const open = [...document.querySelectorAll("details[open]")].map((each) => each.id);
    for (const name of ["main", "header"]) {
      const found = fresh.querySelector(name);
      const focused = document.activeElement;
      const typing = focused && focused.id === "q" ? [focused.value, focused.selectionStart] : null;
      if (found) document.querySelector(name).replaceWith(document.adoptNode(found));
      const box = document.getElementById("q");
      if (typing && box) {
        box.value = typing[0];
        box.focus({ preventScroll: true });
        box.setSelectionRange(typing[1], typing[1]);
      }
    }
    for (const id of open) {
      const found = document.getElementById(id);
      if (found) found.open = true;
    }
    const icon = fresh.querySelector("link[rel=icon]");
    if (icon) document.querySelector("link[rel=icon]").href = icon.href;
    document.title = fresh.title;
  };
  const look = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(location.href, { cache: "no-store", credentials: "same-origin" });
      if (!answer.ok) throw new Error(answer.status);
      swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
      failed = 0;
      document.documentElement.dataset.refreshed = Date.now();
    } catch (error) {
      failed += 1;
      say(`no answer for ${failed * seconds} s: what is shown is old`, true);
    }
  };
  live.title = `looks again every ${seconds} s`;
  setInterval(look, seconds * 1000);
  document.addEventListener("visibilitychange", look);
})();
