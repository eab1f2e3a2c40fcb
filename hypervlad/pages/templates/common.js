// What all pages with a script share: elements, numbers, and the arrow keys among tiles.
"use strict";

const by = (id) => document.getElementById(id);

function element(tag, name = "", ...children) { // texts or nodes
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...children);
  return made;
}

function button(use, name, ...children) {
  const made = element("button", name, ...children);
  made.type = "button";
  made.onclick = use;
  return made;
}

function press(button, isPressed) { button.setAttribute("aria-pressed", String(isPressed)); }

function filled(share) { // what shows a share as the length of a bar
  const made = element("span", "fill");
  made.style.width = `${100 * share}%`;
  return made;
}

function count(number) { return number.toLocaleString("en-GB"); }

// Never 100 % for less than 1, nor 0 % for more than 0: as `percent` in wording.py.
function percent(share) {
  if (share > 0 && share < 0.001) return "<0.1 %";
  if (share > 0.999 && share < 1) return ">99.9 %";
  return `${(Math.floor(1000 * share + 0.5) / 10).toFixed(1)} %`;
}

// The place that an arrow key, Home or End leads to among tiles in rows; the same if there is none.
function placeAfter(key, place, tiles) {
  const top = (tile) => tile.getBoundingClientRect().top;
  const next = tiles.findIndex((tile) => top(tile) > top(tiles[0]));
  const row = next < 0 ? tiles.length : next;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row };
  const ends = { Home: 0, End: tiles.length - 1 };
  const goal = key in ends ? ends[key] : place + steps[key];
  return tiles[goal] ? goal : place;
}
