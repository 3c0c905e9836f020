// What all inspectors share. An inspector finds its own output, so any number of them can stand on one page.
const root = document.currentScript && document.currentScript.closest(".av-widget");
if (!root || root.dataset.on) return;
root.dataset.on = "1";
const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
const still = root.querySelector("img");

const make = (tag, props = {}, ...inner) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value); else made[name] = value;
  }
  made.append(...inner);
  return made;
};
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const short = value => {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "inf" : "-inf";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return value.toLocaleString("en-US");
  return size < 1e-3 || size >= 1e6 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
};
const bytes = text => Uint8Array.from(atob(text), sign => sign.charCodeAt(0));
const line = (text = "", css = "") => make("p", { className: css, textContent: text });
const reader = () => make("p", { className: "av-read", role: "status" });

// Lab takes arrow keys for itself, also from sliders; only on the way down can a key be kept from it.
const keys = new Map();
root.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || ["Escape", "Tab"].includes(event.key)) return;
  event.stopPropagation();
  if (keys.has(event.target) && keys.get(event.target)(event)) event.preventDefault();
}, true);
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// A slider with its name and its value.
const slider = (name, { low = 0, high, step = 1, value, text = String, change }) => {
  const shown = make("output", { textContent: text(value) });
  const input = make("input", { type: "range", min: low, max: high, step, value, "aria-label": name });
  input.addEventListener("input", () => {
    shown.textContent = text(Number(input.value));
    input.setAttribute("aria-valuetext", shown.textContent);
    change(Number(input.value));
  });
  return Object.assign(make("label", {}, name, input, shown), { input });
};
const choice = (name, values, value, change) => {
  const input = make("select", { "aria-label": name }, ...values.map((text, k) => make("option", { value: k, textContent: text })));
  input.value = value;
  input.addEventListener("change", () => change(Number(input.value)));
  return Object.assign(make("label", {}, name, input), { input });
};

// A palette picture is picture and data in one: the colour table of its PNG, read backwards, gives the levels.
const TABLE_AT = 41; // 8 bytes of signature, 25 of header, 8 of the table's length and name
const decode = async url => {
  const image = new Image();
  image.src = url;
  await image.decode();
  const width = image.naturalWidth, height = image.naturalHeight;
  const context = make("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const seen = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
  const file = bytes(url.slice(url.indexOf(",") + 1)), colours = new Uint32Array(256), levels = new Map();
  const parts = new Uint8Array(colours.buffer);
  for (let k = 0; k < 256; k++) {
    for (let c = 0; c < 3; c++) parts[4 * k + c] = file[TABLE_AT + 3 * k + c];
    parts[4 * k + 3] = 255;
    levels.set(colours[k], k);
  }
  return { width, height, colours, levels: Uint8Array.from(seen, colour => levels.get(colour) ?? LEVELS) };
};
const paint = (canvas, levels, colours) => {
  const picture = new ImageData(canvas.width, canvas.height);
  new Uint32Array(picture.data.buffer).set(Uint32Array.from(levels, level => colours[level]));
  canvas.getContext("2d").putImageData(picture, 0, 0);
};

// Levels to numbers: 0 to 252 lie between the limits, or have a table if there are few different values.
const LEVELS = 253;
const number = (level, scale) => {
  if (level >= LEVELS) return [NaN, Infinity, -Infinity][level - LEVELS];
  return scale.values ? scale.values[level] : scale.low + (level / (LEVELS - 1)) ** (scale.power || 1) * (scale.high - scale.low);
};
const words = (level, scale) => {
  const value = number(level, scale);
  if (scale.words && level < LEVELS) return scale.words[level];
  if (scale.values || level >= LEVELS) return short(value);
  if (level === 0 && scale.below) return `at most ${short(value)}`;
  if (level === LEVELS - 1 && scale.above) return `at least ${short(value)}`;
  return `≈ ${short(value)}`;
};

// A picture that tells where the pointer is, and that arrow keys walk over; `cell` marks the place.
const pointed = (box, columns, rows, { move, act = () => {}, place, seek, key = () => false }) => {
  const cell = make("div", { className: "av-cell", hidden: true });
  box.append(cell);
  let at = null;
  const mark = () => {
    const [left, top, width, height] = place ? place(...at) : [at[0] / columns, at[1] / rows, 1 / columns, 1 / rows];
    Object.assign(cell.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * width}%`, height: `${100 * height}%` });
  };
  const go = (x, y) => {
    at = [clamp(x, 0, columns - 1), clamp(y, 0, rows - 1)];
    cell.hidden = false;
    mark();
    move(...at);
  };
  const from = event => {
    const frame = box.getBoundingClientRect();
    const [x, y] = [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
    return seek ? seek(x, y) : [Math.floor(x * columns), Math.floor(y * rows)];
  };
  box.tabIndex = 0;
  box.addEventListener("pointermove", event => go(...from(event)));
  box.addEventListener("click", event => { go(...from(event)); act(...at, event.shiftKey); });
  box.addEventListener("focus", () => { if (!at && box.matches(":focus-visible")) go(0, 0); });
  keys.set(box, event => {
    if (ARROWS[event.key]) {
      const [dx, dy] = ARROWS[event.key], far = event.shiftKey ? 10 : 1;
      if (at) go(at[0] + far * dx, at[1] + far * dy); else go(0, 0);
    } else if ((event.key === "Enter" || event.key === " ") && at) act(...at, event.shiftKey);
    else return key(event.key);
    return true;
  });
  return { again: () => { if (at) go(...at); }, mark: () => { if (at) mark(); } };
};
