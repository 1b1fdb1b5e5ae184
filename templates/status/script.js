// Puts what the gateway sends in place of what is shown. All of it was written, and escaped, by the gateway; scripts in it would
// not run.
"use strict";

const STALE_MS = 5000;
const words = document.body.dataset;
const state = document.getElementById("link-state");
const button = document.getElementById("pause");
const pending = new Map();
let paused = false;
let heard = 0;

// Whoever reads, selects or is in a part with the keyboard keeps it until he is done.
function isInUse(part) {
  const selection = document.getSelection();
  const selected = selection && !selection.isCollapsed && selection.containsNode(part, true);
  return selected || (part !== document.activeElement && part.contains(document.activeElement));
}

function show() {
  if (paused) return;
  for (const [id, html] of pending) {
    const part = document.getElementById(id);
    if (part && isInUse(part)) continue;
    pending.delete(id);
    if (part) part.innerHTML = html;
  }
}

function say() {
  const lost = Date.now() - heard > STALE_MS;
  const word = paused ? words.paused : lost ? words.lost : words.live;
  if (state.textContent !== word) state.textContent = word;
}

function listen() {
  const source = new EventSource("status/events");
  source.addEventListener("part", (event) => {
    heard = Date.now();
    const end = event.data.indexOf("\n");
    pending.set(event.data.slice(0, end), event.data.slice(end + 1));
    show();
    say();
  });
}

button.textContent = words.pause;
button.addEventListener("click", () => {
  paused = !paused;
  button.textContent = paused ? words.goOn : words.pause;
  show();
  say();
});
document.addEventListener("selectionchange", show);
heard = Date.now();
setInterval(say, 1000);
document.getElementById("link").hidden = false;
say();
listen();
