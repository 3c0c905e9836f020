// A spectrogram with its sound: a cursor, a selection, a zoom, and the patches that become tokens.
const { frames, bins, hop, hertz, patch, rate } = data;
const audio = root.querySelector("audio"), read = reader(), told = reader();
const box = make("div", { className: "av-picture", role: "img", style: "width: 800px; height: 240px",
  "aria-label": `${data.name}. Arrow keys walk over it, Enter plays ${patch ? "a patch" : "a second"}, plus and minus zoom.` });
const canvas = make("canvas"), over = make("div", { className: "av-over" });
const cursor = make("div", { className: "av-line" }), chosen = make("div", { className: "av-chosen", hidden: true });
const times = make("div", { className: "av-below av-times" }), pitches = make("div", { className: "av-pitches" });
const whole = make("canvas", { width: frames, height: bins });
const [high, wide] = patch || [0, 0], rows = patch ? Math.floor(bins / high) : 0, columns = patch ? Math.floor(frames / wide) : 0;
let picture, from = 0, to = frames, selection = null, token = null, sounding = null;

// Edges of bins lie half way between their centres.
const edge = bin => {
  if (!hertz) return NaN;
  const [low, top] = [hertz[bin - 1], hertz[bin]];
  if (low === undefined) return Math.max(0, top - (hertz[1] - top) / 2);
  if (top === undefined) return Math.min(rate / 2, low + (low - hertz[bins - 2]) / 2);
  return (low + top) / 2;
};
const seconds = value => `${value.toFixed(3)} s`;
const span = ([a, b]) => `${a.toFixed(3)} to ${seconds(b)}`;
const share = frame => (frame - from) / (to - from);
const put = (mark, a, b, top = 0, height = 1) => Object.assign(mark.style, {
  left: `${100 * share(a)}%`, width: `${100 * (share(b) - share(a))}%`, top: `${100 * top}%`, height: `${100 * height}%` });

const draw = () => {
  const dense = window.devicePixelRatio || 1, size = box.getBoundingClientRect();
  Object.assign(canvas, { width: Math.max(1, Math.round(size.width * dense)), height: Math.max(1, Math.round(size.height * dense)) });
  const brush = canvas.getContext("2d"), one = canvas.width / (to - from), tall = canvas.height / bins;
  brush.imageSmoothingEnabled = false;
  brush.drawImage(whole, from, 0, to - from, bins, 0, 0, canvas.width, canvas.height);
  if (patch && wide * one > 4 * dense) {
    brush.fillStyle = "rgb(255 255 255 / 45%)";
    for (let c = 0; c <= columns; c++) brush.fillRect(Math.round((c * wide - from) * one), 0, 1, canvas.height);
    for (let r = 0; r <= rows; r++) brush.fillRect(0, Math.round(canvas.height - r * high * tall), canvas.width, 1);
  }
  const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300];
  const step = steps.find(s => (to - from) * hop / s <= size.width / 70) || 600, ticks = [];
  for (let k = Math.ceil(from * hop / step - 1e-6); k * step <= to * hop; k++) {
    const left = 100 * share(k * step / hop);
    if (left < 98) ticks.push(make("span", { textContent: `${Number((k * step).toFixed(3))}${ticks.length ? "" : " s"}`, style: `left: ${left}%` }));
  }
  times.replaceChildren(...ticks);
  chosen.hidden = !(selection || token);
  if (token) put(chosen, token.column * wide, (token.column + 1) * wide, 1 - (token.row + 1) * high / bins, high / bins);
  else if (selection) put(chosen, selection[0] / hop, selection[1] / hop);
  hover.mark();
};
const zoom = (by, around = (from + to) / 2) => {
  const width = clamp((to - from) * by, Math.min(frames, 16), frames);
  from = clamp(around - (around - from) * width / (to - from), 0, frames - width);
  to = from + width;
  draw();
};

// Sound of a part, through filters: the whole comes from the player.
let context, buffer;
const stop = () => { if (sounding) { sounding.node.onended = null; sounding.node.stop(); sounding = null; } };
const play = async ([start, end], band = null) => {
  audio.pause();
  stop();
  context ||= new AudioContext();
  buffer ||= context.decodeAudioData(bytes(audio.src.slice(audio.src.indexOf(",") + 1)).buffer);
  const sound = await buffer;
  await context.resume();
  stop();
  const node = context.createBufferSource();
  node.buffer = sound;
  let last = node;
  const filter = (type, frequency) => [0.541, 1.307].forEach(Q => { // two of second order: Butterworth of fourth
    const made = new BiquadFilterNode(context, { type, frequency, Q: 20 * Math.log10(Q) });
    last = last.connect(made);
  });
  if (band && band[0] > 25) filter("highpass", band[0]);
  if (band && band[1] < 0.98 * rate / 2) filter("lowpass", band[1]);
  last.connect(context.destination);
  node.start(0, start, Math.max(0.01, end - start));
  sounding = { node, start, began: context.currentTime };
  node.onended = () => { sounding = null; };
  root.dataset.sound = `${span([start, end])}${band ? `, ${Math.round(band[0])} to ${Math.round(band[1])} Hz` : ""}`;
};
const follow = () => {
  const now = sounding ? sounding.start + context.currentTime - sounding.began : audio.currentTime;
  const left = share(now / hop);
  cursor.hidden = left < 0 || left > 1 || !(sounding || audio.currentTime);
  cursor.style.left = `${100 * left}%`;
  if (root.isConnected) requestAnimationFrame(follow);
};

const about = (column, row) => {
  const order = data.order === "frequency";
  const number = order ? row * columns + column : column * rows + row;
  const formula = order ? `${row} × ${columns} + ${column}` : `${column} × ${rows} + ${row}`;
  const time = [column * wide * hop, ((column + 1) * wide - 1) * hop + data.window];
  const band = hertz ? [edge(row * high), edge((row + 1) * high)] : null;
  return { number, formula, time, band, row, column };
};
const pick = (column, row) => {
  if (column < 0 || row < 0 || column >= columns || row >= rows) return;
  token = about(column, row);
  selection = null;
  const { number, formula, time, band } = token;
  told.textContent = `Token ${number} = ${formula}: row ${row} (bins ${row * high}–${(row + 1) * high - 1}${band ? `, ${Math.round(band[0])} to ${Math.round(band[1])} Hz` : ""}), column ${column} (frames ${column * wide}–${(column + 1) * wide - 1}, ${span(time)}).`;
  draw();
  play(time, band);
};

const hover = pointed(box, frames, bins, {
  seek: (x, y) => [Math.floor(from + x * (to - from)), Math.floor(y * bins)],
  place: (x, y) => [share(x), y / bins, 1 / (to - from), 1 / bins],
  move: (x, y) => {
    const bin = bins - 1 - y;
    read.textContent = `${seconds(x * hop)} (frame ${x}), ${hertz ? `${Math.round(hertz[bin])} Hz (bin ${bin})` : `bin ${bin}`}: ${words(picture.levels[y * frames + x], data)}`;
  },
  act: (x, y) => {
    if (dragged) return;
    if (patch) pick(Math.floor(x / wide), Math.floor((bins - 1 - y) / high)); else play([x * hop, x * hop + 1]);
  },
  key: key => {
    if (key === "+" || key === "=") zoom(0.5); else if (key === "-") zoom(2); else return false;
    return true;
  },
});
let grabbed = null, dragged = false, scrolled = 0;
const timeAt = event => {
  const frame = box.getBoundingClientRect();
  return clamp(from + (event.clientX - frame.left) / frame.width * (to - from), 0, frames) * hop;
};
box.addEventListener("pointerdown", event => {
  if (event.button) return;
  grabbed = [event.clientX, timeAt(event)];
  dragged = false;
  box.setPointerCapture(event.pointerId);
});
box.addEventListener("pointermove", event => {
  if (!grabbed || (!dragged && Math.abs(event.clientX - grabbed[0]) < 5)) return;
  dragged = true;
  token = null;
  selection = [grabbed[1], timeAt(event)].sort((a, b) => a - b);
  draw();
});
box.addEventListener("pointerup", () => {
  if (grabbed && dragged) {
    told.textContent = `Selected: ${span(selection)}`;
    play(selection);
  }
  grabbed = null;
});
box.addEventListener("pointercancel", () => { grabbed = null; });
// A wheel that is scrolling the page goes on doing so when the picture comes under it.
addEventListener("scroll", () => { scrolled = performance.now(); }, { capture: true, passive: true });
box.addEventListener("wheel", event => {
  if (performance.now() - scrolled < 300 || (event.deltaY > 0 && to - from === frames)) return;
  event.preventDefault();
  zoom(1.25 ** Math.sign(event.deltaY), timeAt(event) / hop);
}, { passive: false });
audio.addEventListener("play", stop);
audio.addEventListener("seeked", () => { if (!audio.paused) stop(); });

const button = (text, act, label = text) => make("button", { type: "button", textContent: text, "aria-label": label, onclick: act });
const start = async () => {
  picture = await decode(still.src);
  paint(whole, picture.levels, picture.colours);
  const again = button("▶ again", () => { if (token) play(token.time, token.band); else if (selection) play(selection); }, "play the token or selection again");
  const plain = button("▶ unfiltered", () => { if (token) play(token.time); }, "play the time of the token, all frequencies");
  const bar = make("div", { className: "av-bar" }, again, ...(patch && hertz ? [plain] : []),
    button("+", () => zoom(0.5), "zoom in"), button("−", () => zoom(2), "zoom out"), button("all", () => zoom(1e9), "show all"));
  box.append(canvas, chosen, cursor);
  [1, 0.75, 0.5, 0.25, 0].forEach(part => {
    const bin = Math.round(part * (bins - 1));
    pitches.append(make("span", { textContent: hertz ? Math.round(hertz[bin]).toLocaleString("en-US") + (part === 1 ? " Hz" : "") : part === 1 ? `bin ${bin}` : bin }));
  });
  const does = patch ? "Click a patch: its number, and its sound." : "Click: a second of sound.";
  read.textContent = `${does} Drag: play a part. Wheel or + and −: zoom. Point or arrow keys: value.`;
  still.replaceWith(make("div", { className: "av-frame av-sound" }, pitches, box, times), read, told, bar);
  new ResizeObserver(draw).observe(box);
  draw();
  follow();
};
start().catch(error => { still.after(line(`The picture could not be read: ${error.message}`, "av-bad")); });
