// A threshold that can be moved: the histograms, counts and calls of the images follow it.
const all = (selector) => [...document.querySelectorAll(selector)];
const { threshold, low, high, groups } = JSON.parse(by("data").textContent);
const [slider, number] = [by("slider"), by("number")];
const initialText = number.value;
const calls = all(".call").map((element) => ({ element, score: Number(element.dataset.score) }));

function show(value, text) {
  const at = 100 * Math.min(Math.max((value - low) / (high - low), 0), 1);
  all(".reached").forEach((rect) => rect.setAttribute("x", `${at}%`));
  all(".threshold").forEach((line) => {
    line.setAttribute("x1", `${at}%`);
    line.setAttribute("x2", `${at}%`);
  });
  const above = groups.map((scores) => scores.filter((score) => score >= value).length);
  write(".above", above);
  write(".below", above.map((n, group) => groups[group].length - n));
  calls.forEach(({ element, score }) => call(element, score >= value));
  slider.setAttribute("aria-valuetext", text);
  by("chosen").textContent = text;
}

function write(selector, counts) {
  all(`.chart ${selector}`).forEach((output, group) => {
    const total = groups[group].length;
    const text = `${counts[group]} of ${total} (${percent(counts[group] / total)})`;
    if (output.textContent !== text) output.textContent = text;
  });
}

function call(element, isAbove) {
  if (element.classList.contains("above") === isAbove) return;
  element.classList.toggle("above", isAbove);
  element.textContent = isAbove ? element.dataset.above : element.dataset.below;
}

function reset() {
  slider.value = threshold;
  number.value = initialText;
  show(threshold, initialText);
}

slider.oninput = () => {
  number.value = slider.value;
  show(Number(slider.value), slider.value);
};
number.oninput = () => {
  if (number.value === "") return;
  slider.value = number.value;
  show(Number(number.value), number.value);
};
by("reset").onclick = reset;
by("controls").hidden = false;
reset(); // also where the browser has restored what was typed
