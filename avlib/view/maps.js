// Tokens of several pictures in one numbering; with weights, where each token looks.
const { maps, removed } = data;
const count = maps.reduce((sum, map) => sum + map.rows * map.columns, 0);
const images = [...root.querySelectorAll("img")], read = reader();
const kept = removed ? [...removed].filter(sign => sign === "0").length : 0;
let weights = null, head = 0, query = null, back = false;

const numberOf = (map, x, y) => map.first + (map.up ? map.rows - 1 - y : y) * map.columns + x;
const placeOf = (map, token) => {
  const row = Math.floor((token - map.first) / map.columns), x = (token - map.first) % map.columns;
  return { row, x, y: map.up ? map.rows - 1 - row : row };
};
const mapOf = token => maps.find(map => token >= map.first && token < map.first + map.rows * map.columns);
const named = token => {
  const map = mapOf(token), { row, x } = placeOf(map, token);
  return `token ${token} (${map.name}: row ${row}, column ${x})`;
};
const level = (one, other) => weights.levels[(head * count + (back ? other : one)) * count + (back ? one : other)];
const told = token => {
  if (weights && query !== null) {
    const [looks, at] = back ? [token, query] : [query, token];
    return `${named(looks)} looks at ${named(at)}: ${words(level(query, token), data)}`;
  }
  const map = mapOf(token), { row, x } = placeOf(map, token);
  const [wide, high] = [map.size[0] / map.columns, map.size[1] / map.rows];
  const first = map.first ? `${map.first} + ` : "";
  const place = map.drawn ? `, ${map.up ? "bins" : "pixels down"} ${row * high}–${(row + 1) * high - 1}, ${map.up ? "frames" : "across"} ${x * wide}–${(x + 1) * wide - 1}` : "";
  const state = removed ? (removed[token] === "1" ? "; removed" : "; kept") : "";
  return `token ${token} = ${first}${row} × ${map.columns} + ${x}: ${map.name}, row ${row}, column ${x}${place}${state}`;
};

const draw = () => maps.forEach(map => {
  const brush = map.canvas.getContext("2d");
  brush.clearRect(0, 0, map.columns, map.rows);
  for (let y = 0; y < map.rows; y++) for (let x = 0; x < map.columns; x++) {
    const token = numberOf(map, x, y);
    if (weights && query !== null) {
      const colour = weights.colours[level(query, token)];
      brush.fillStyle = `rgb(${colour & 255} ${colour >> 8 & 255} ${colour >> 16 & 255} / 82%)`;
    } else if (removed && removed[token] === "1") brush.fillStyle = "rgb(179 179 179 / 92%)"; else continue;
    brush.fillRect(x, y, 1, 1);
  }
  const here = query !== null && mapOf(query) === map;
  map.ring.hidden = !here;
  if (here) {
    const { x, y } = placeOf(map, query);
    Object.assign(map.ring.style, { left: `${100 * x / map.columns}%`, top: `${100 * y / map.rows}%`, width: `${100 / map.columns}%`, height: `${100 / map.rows}%` });
  }
});
const choose = (token, shift) => {
  if (weights) { back = shift || (turned.getAttribute("aria-pressed") === "true"); }
  query = token;
  field.value = token;
  if (!weights) read.textContent = told(token);
  else {
    let best = 0;
    for (let other = 1; other < count; other++) if (level(token, other) > level(token, best)) best = other;
    read.textContent = `${back ? "Who looks at" : "Where does"} ${named(token)}${back ? "" : " look"}? Most: ${named(best)}, ${words(level(token, best), data)}`;
  }
  draw();
};
const field = make("input", { type: "number", min: 0, max: count - 1, value: "", "aria-label": "number of a token" });
field.addEventListener("change", () => { if (field.value !== "") choose(clamp(Math.round(Number(field.value)), 0, count - 1), false); });
const turned = make("button", { type: "button", textContent: "who looks at it", "aria-pressed": "false", onclick: () => {
  turned.setAttribute("aria-pressed", String(turned.getAttribute("aria-pressed") !== "true"));
  if (query !== null) choose(query, false);
} });

const start = async () => {
  if (data.weights) weights = await decode(data.weights);
  const bar = make("div", { className: "av-bar" }, make("label", {}, "token", field));
  if (weights) bar.append(turned);
  if (data.heads > 1) bar.append(slider("head", { high: data.heads - 1, value: 0, change: value => { head = value; if (query !== null) choose(query, false); } }));
  const all = make("div", { className: "av-bar av-maps" });
  maps.forEach(map => {
    const box = make("div", { className: "av-picture", role: "img", "aria-label": `${map.name}: ${map.rows} by ${map.columns} tokens. Arrow keys walk over them, Enter chooses one.` });
    const ratio = map.drawn && !map.up ? map.size[0] / map.size[1] : Math.max(map.columns / map.rows, 0.5);
    const width = map.up || !map.drawn ? clamp(map.columns * 24, 120, 480) : 300;
    Object.assign(box.style, { width: `${width}px`, aspectRatio: `${width} / ${Math.max(map.up ? 140 : 30, width / ratio)}` });
    map.canvas = make("canvas", { className: "av-over", width: map.columns, height: map.rows });
    map.ring = make("div", { className: "av-cell av-ring", hidden: true });
    const grid = make("div", { className: "av-over av-grid", style: `background-size: ${100 / map.columns}% ${100 / map.rows}%` });
    if (map.drawn) { images[0].removeAttribute("style"); box.append(images.shift()); }
    box.append(map.canvas, grid, map.ring);
    pointed(box, map.columns, map.rows, {
      move: (x, y) => { read.textContent = told(numberOf(map, x, y)); },
      act: (x, y, shift) => choose(numberOf(map, x, y), shift),
    });
    all.append(make("div", {}, line(`${map.name}: ${map.rows} × ${map.columns}, tokens ${map.first}–${map.first + map.rows * map.columns - 1}`), box));
  });
  read.textContent = weights ? `Click a token: where it looks. With shift, or the button: who looks at it. Dark is ${short(data.low)}, bright ${short(data.high)}.` : `Click a token or give its number.${removed ? ` Grey: removed; ${kept} of ${count} are kept.` : ""}`;
  root.querySelector("img")?.parentElement.remove();
  root.append(all, read, bar);
  draw();
};
start().catch(error => { root.append(line(`The picture could not be read: ${error.message}`, "av-bad")); });
