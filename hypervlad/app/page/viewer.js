// The view of an image: the wheel enlarges it, the pointer moves it. Each page has `extent`, width and
// height of what is in `#stage`, and `draw`, which shows it as `view` says.
const CLICK = 4; // pixels by which a click may move
const stage = by("stage");
let view = { scale: 1, x: 0, y: 0 }; // of the screen: scale * pixel + (x, y)
let fitted = 0; // scale at which the whole image is shown

function size() { return [stage.clientWidth, stage.clientHeight]; }

function fit() {
  const [width, height] = size();
  const [across, down] = extent();
  fitted = Math.min(width / across, height / down);
  view = { scale: fitted, x: (width - fitted * across) / 2, y: (height - fitted * down) / 2 };
  draw();
}

function zoom(factor, at = size().map((each) => each / 2)) {
  const [width, height] = size();
  const [across, down] = extent();
  const least = Math.min(0.5 * Math.min(width / across, height / down), 1);
  const scale = Math.min(Math.max(view.scale * factor, least), 64);
  const [x, y] = [view.x, view.y].map((each, axis) => at[axis] - (at[axis] - each) * scale / view.scale);
  view = { scale, x, y };
  draw();
}

function placeOf({ clientX, clientY }) { // of a pointer, on the stage
  const { left, top } = stage.getBoundingClientRect();
  return [clientX - left, clientY - top];
}

function pixelAt(event) { return placeOf(event).map((each, axis) => (each - [view.x, view.y][axis]) / view.scale); }
function crossAt([x, y], arm) { return `M${x - arm} ${y}h${2 * arm}M${x} ${y - arm}v${2 * arm}`; }

// Of what is in view: in pixels, and as the server is sent it, in shares of the sides.
function middle() { return size().map((side, axis) => (side / 2 - [view.x, view.y][axis]) / view.scale); }
function middleShares() { return middle().map((at, axis) => at / extent()[axis]).join(" "); }

// The pixel to which an arrow key leads from another: by ten pixels of the screen, or one.
function moved([x, y], key, isFine) {
  const step = (isFine ? 1 : 10) / view.scale;
  return [x + step * ((key === "ArrowRight") - (key === "ArrowLeft")), y + step * ((key === "ArrowDown") - (key === "ArrowUp"))];
}

function hasMoved(event, from) { return Math.hypot(event.clientX - from.clientX, event.clientY - from.clientY) > CLICK; }

// Of pages without tools: a picture, or what lies on it, is moved, and a click means a pixel.
function moveByPointer(click = () => {}) {
  let from = null;
  let isMoved = false;
  stage.onpointerdown = (event) => { stage.setPointerCapture(event.pointerId); [from, isMoved] = [event, false]; };
  stage.onpointermove = (event) => {
    isMoved ||= Boolean(from) && hasMoved(event, from);
    if (!from || !isMoved) return;
    [view.x, view.y] = [view.x + event.clientX - from.clientX, view.y + event.clientY - from.clientY];
    from = event;
    draw();
  };
  stage.onpointerup = (event) => { if (from && !isMoved) click(pixelAt(event)); from = null; };
}

// Load a picture: return "" once it is there, why it cannot be shown, or null if it is not wanted any more.
async function whyUnreadable(img, isWanted) {
  for (;;) {
    if (await img.decode().then(() => true, () => false)) return isWanted() ? "" : null;
    const answer = await fetch(img.src).catch(() => null);
    if (isWanted() && answer && !answer.ok && answer.status !== 503) return reasonOf(answer); // not gone for a moment, or busy
    await new Promise((resolve) => setTimeout(resolve, RETRY));
    if (!isWanted()) return null;
    img.src = `${img.src}`;
  }
}

function place(element) { element.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`; }

stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(1.2 ** (-event.deltaY / (event.deltaMode ? 3 : 100)), placeOf(event));
}, { passive: false });
const resized = new ResizeObserver(() => (view.scale === fitted ? fit() : draw()));
document.addEventListener("DOMContentLoaded", () => resized.observe(stage)); // when the page's own script is there
