"use strict";
// Keeps the page up to date: the server tells which sections have changed, and those are fetched and put in place.
// Without this script the page is the same, as of when it was loaded.

const live = document.getElementById("live");
const said = document.getElementById("said");
const inHand = new Set();
let marks = {};

function duration(seconds) {
  if (seconds < 120) return Math.max(0, Math.round(seconds)) + " s";
  if (seconds < 7200) return Math.round(seconds / 60) + " min";
  if (seconds < 172800) return (seconds / 3600).toFixed(1) + " h";
  return (seconds / 86400).toFixed(1) + " days";
}

function tellTimes(root) {
  for (const time of root.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    const words = time.hasAttribute("data-ago")
      ? duration((Date.now() - at) / 1000) + " ago"
      : at.toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
    if (time.textContent !== words) {
      time.title = at.toLocaleString();
      time.textContent = words;
    }
  }
}

// Whoever has opened something or types in a section is not disturbed; it is put in place when they leave it.
function isInUse(section) {
  return section.contains(document.activeElement) && document.activeElement.matches("input, button, summary");
}

function nameOf(details) {
  return details.querySelector("summary").textContent;
}

async function refresh(name) {
  const section = document.getElementById(name);
  if (!section || inHand.has(name) || isInUse(section)) return;
  inHand.add(name);
  try {
    const answer = await fetch("/section/" + encodeURIComponent(name));
    if (!answer.ok) return;
    const inside = section.querySelector(".inside");
    const open = new Set([...inside.querySelectorAll("details[open]")].map(nameOf));
    const scrolled = [...inside.querySelectorAll(".box")].map((one) => [one.scrollLeft, one.scrollTop]);
    inside.innerHTML = await answer.text();
    inside.querySelectorAll("details").forEach((one) => { one.open = open.has(nameOf(one)); });
    inside.querySelectorAll(".box").forEach((one, place) => {
      if (scrolled[place]) [one.scrollLeft, one.scrollTop] = scrolled[place];
    });
    section.dataset.mark = answer.headers.get("X-Mark");
    tellTimes(section);
  } finally {
    inHand.delete(name);
  }
}

function catchUp() {
  for (const [name, mark] of Object.entries(marks)) {
    const section = document.getElementById(name);
    if (section && section.dataset.mark !== mark) refresh(name).catch(() => {});
  }
}

if (live) {
  const events = new EventSource("/events");
  events.addEventListener("marks", (event) => {
    live.textContent = "Live: this page follows what happens.";
    marks = JSON.parse(event.data);
    catchUp();
  });
  events.onerror = () => {
    live.textContent = "The connection is lost; what you see is of before. Trying again.";
  };
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.hasAttribute("data-action")) return;
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams(new FormData(form)),
    });
    const words = await answer.json();
    said.textContent = words.said || words.detail;
    const details = form.closest("details");
    if (answer.ok && details) details.open = false;
  } catch {
    said.textContent = "Nobody answers; nothing may have been done.";
  } finally {
    button.disabled = false;
    said.scrollIntoView({ block: "nearest" });
  }
});

tellTimes(document);
setInterval(() => { tellTimes(document); catchUp(); }, 1000);
