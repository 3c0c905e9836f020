// A tensor: its last two axes as a picture, a slider for each other axis.
const { tile, turned } = data;
const axes = data.names.map((name, k) => ({ name, size: data.sizes[k], full: data.full[k], stride: data.strides[k], made: k < data.added }));
const others = axes.slice(0, -2), [down, across] = turned ? [axes.at(-1), axes.at(-2)] : axes.slice(-2);
const at = data.start.slice();
const box = make("div", { className: "av-picture", role: "img", "aria-label": `${data.name}: ${down.name} and ${across.name}. Arrow keys walk over the values.` });
const canvas = make("canvas", { width: tile[0], height: tile[1] });
const read = reader(), below = line(), plot = make("div");
let picture, shown;

const index = (x, y) => {
  const row = turned ? tile[1] - 1 - y : y;
  const last = turned ? [x, row] : [row, x];
  return [...at, ...last].map((place, k) => place * axes[k].stride);
};
const told = place => axes.map((axis, k) => axis.made ? "" : `${axis.name} ${place[k]}`).filter(Boolean).join(", ");
const css = colour => `rgb(${colour & 255} ${colour >> 8 & 255} ${colour >> 16 & 255})`;
const slice = () => {
  const which = others.reduce((sum, axis, k) => sum * axis.size + at[k], 0);
  const length = tile[0] * tile[1];
  shown = picture.levels.subarray(which * length, (which + 1) * length);
  paint(canvas, shown, picture.colours);
  histogram();
};
const histogram = () => {
  const bins = new Array(data.values ? data.values.length : 64).fill(0);
  const bad = [0, 0, 0];
  for (const level of shown) if (level < LEVELS) bins[data.values ? level : level >> 2]++; else bad[level - LEVELS]++;
  const most = Math.max(1, ...bins), wide = 300 / bins.length;
  const bars = bins.map((count, k) => {
    const height = count ? Math.max(1.5, 44 * count / most) : 0;
    return `M${k * wide},46v${-height}h${Math.max(wide - 0.6, 0.4)}v${height}z`;
  });
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), path = document.createElementNS(svg.namespaceURI, "path");
  for (const [name, value] of Object.entries({ viewBox: "0 0 300 46", preserveAspectRatio: "none", class: "av-histogram", role: "img" })) svg.setAttribute(name, value);
  svg.setAttribute("aria-label", `histogram of the ${shown.length} values shown, from ${short(data.low)} to ${short(data.high)}`);
  path.setAttribute("d", bars.join(""));
  path.setAttribute("fill", "currentColor");
  svg.append(path);
  plot.replaceChildren(svg);
  below.textContent = `histogram of what is shown, ${short(data.low)} to ${short(data.high)}`;
  ["NaN", "inf", "-inf"].forEach((word, k) => bad[k] && below.append("; ",
    make("span", { className: "av-legend", style: `background: ${css(picture.colours[LEVELS + k])}` }), `${bad[k].toLocaleString("en-US")} ${word}`));
};

const start = async () => {
  picture = await decode(data.picture || still.src);
  const bar = make("div", { className: "av-bar" });
  others.forEach((axis, k) => axis.size > 1 && bar.append(slider(axis.name, {
    high: axis.size - 1, value: at[k], text: value => `${value * axis.stride} (0–${axis.full - 1})`,
    change: value => { at[k] = value; slice(); hover.again(); },
  })));
  const scale = make("div", { className: "av-scale" }), ramp = make("canvas", { width: 1, height: LEVELS });
  paint(ramp, Array.from({ length: LEVELS }, (_, k) => {
    const part = (LEVELS - 1 - k) / (LEVELS - 1);
    return data.values ? Math.min(data.values.length - 1, Math.floor(part * data.values.length)) : LEVELS - 1 - k;
  }), picture.colours);
  const ends = data.words ? [data.words.at(-1), data.words[0]] : [short(data.high), short(data.low)];
  scale.append(ramp, make("span", {}, ...ends.map(text => make("span", { textContent: text }))));
  const frame = make("div", { className: "av-frame" },
    make("div", { className: "av-left", textContent: down.made ? "" : turned ? `${down.name} →` : `← ${down.name}` }),
    box, scale, make("div", { className: "av-below", textContent: across.made ? "" : `${across.name} →` }));
  const grow = Math.min(26, Math.max(1, Math.min(720 / tile[0], 380 / tile[1])));
  const [wide, high] = [clamp(tile[0] * grow, 120, 740), clamp(tile[1] * grow, down.made ? 40 : 26, 420)];
  Object.assign(box.style, { width: `${wide}px`, aspectRatio: `${wide} / ${high}`, minHeight: "26px" });
  box.append(canvas);
  const hover = pointed(box, tile[0], tile[1], {
    move: (x, y) => { read.textContent = `${told(index(x, y))}: ${words(shown[y * tile[0] + x], data)}`; },
  });
  read.textContent = "Point at a value, or press arrow keys.";
  still.replaceWith(bar, frame, read, plot, below);
  slice();
};
start().catch(error => { still.after(line(`The picture could not be read: ${error.message}`, "av-bad")); });
