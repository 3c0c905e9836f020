// Formulas at any size: those of a trace, or several lengths side by side.
const sizes = {}, read = reader(), panel = make("div", { className: "av-tree" });
const steps = { "+": (a, b) => a + b, "-": (a, b) => a - b, "*": (a, b) => a * b, "/": (a, b) => a / b, "**": (a, b) => a ** b, float32: a => Math.fround(a) };
const one = item => (Array.isArray(item) ? value(item) : typeof item === "number" ? item : steps[item.sign](...item.sides.map(one)));
const even = number => (Math.abs(number % 1) === 0.5 ? 2 * Math.round(number / 2) : Math.round(number));
const call = ([name, first, ...rest]) => {
  if (name === "floor" && rest.length) return Math.floor(one(first) / one(rest[0]));
  if (name === "round") return even(one(first));
  return Math[name === "int" ? "trunc" : name](...[first, ...rest].map(one));
};
const value = terms => terms.reduce((sum, [factor, atoms]) => sum
  + atoms.reduce((product, atom) => product * (Array.isArray(atom) ? call(atom) : sizes[atom]), factor), 0);
const signs = { "==": (a, b) => a === b, "!=": (a, b) => a !== b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "<": (a, b) => a < b, ">": (a, b) => a > b };
const at = place => (place === null ? "?" : value(data.formulas[place][1]));
const whole = number => (typeof number === "number" ? number.toLocaleString("en-US") : number);
const scaled = (number, steps, plain) => {
  const [step, unit] = steps.find(([least]) => number >= least) || [1, plain];
  return `${step === 1 ? whole(number) : Number((number / step).toPrecision(3))} ${unit}`.trim();
};
const cost = ([place, unknown], steps, plain) => (unknown && at(place) === 0 ? "?" : (unknown ? "≥ " : "") + scaled(at(place), steps, plain));
const BINARY = [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]], DECIMAL = [[1e15, "PFLOP"], [1e12, "TFLOP"], [1e9, "GFLOP"], [1e6, "MFLOP"], [1e3, "kFLOP"]];
const holds = ([left, sign, right]) => signs[sign](at(left), at(right));
const nearest = name => {
  const [, , low, high] = data.sliders.find(one => one[0] === name), here = sizes[name];
  for (let away = 1; away <= Math.min(100000, high); away++) for (const size of [here - away, here + away]) {
    if (size < low || size > high) continue;
    sizes[name] = size;
    const good = data.needs.every(holds);
    sizes[name] = here;
    if (good) return size;
  }
  return null;
};
const updates = [];
const tree = (nodes, depth) => nodes.map(([label, shape, memory, flops, inner]) => {
  const size = make("code"), told = make("small"), formula = `(${shape.map(place => (place === null ? "?" : data.formulas[place][0])).join(", ")})`;
  const row = make(inner.length ? "summary" : "div", { className: "av-row", title: formula }, make("span", { textContent: label }), size, make("code", { className: "av-formula", textContent: shape.length ? formula : "" }), told);
  updates.push(() => {
    size.textContent = shape.length ? `(${shape.map(place => whole(at(place)).replace(/,/g, "")).join(", ")})` : "";
    told.textContent = `${cost(memory, BINARY, "B")}, ${cost(flops, DECIMAL, "FLOP")}`;
  });
  return inner.length ? make("details", { open: depth < 1 }, row, ...tree(inner, depth + 1)) : row;
});
const lengths = () => {
  const rows = data.lengths.map(([name, formula, terms, top, bottom]) => {
    const number = make("b"), said = make("span");
    updates.push(() => {
      const found = value(terms), wanted = Math.floor(value(data.lengths[0][2]) * bottom / top);
      number.textContent = whole(found);
      said.textContent = found === wanted ? "" : `${Math.abs(found - wanted)} ${found > wanted ? "more" : "fewer"} than ${whole(wanted)}`;
      row.classList.toggle("av-bad", found !== wanted);
    });
    const row = make("div", { className: "av-row" }, make("span", { textContent: name }), number, make("code", { className: "av-formula", textContent: formula }), said);
    return row;
  });
  panel.append(...rows);
};
const bar = make("div", { className: "av-bar" });
let changed = data.sliders[0][0];
const go = make("button", { type: "button", hidden: true });
const draw = () => {
  updates.forEach(update => update());
  if (data.lengths) {
    const [name] = data.sliders[0], first = data.lengths[0];
    const apart = data.lengths.filter(([, , terms, top, bottom]) => value(terms) !== Math.floor(value(first[2]) * bottom / top)).map(one => one[0]);
    read.textContent = apart.length ? `At ${name} = ${whole(sizes[name])}, ${apart.join(" and ")} part${apart.length > 1 ? "" : "s"} from ${first[0]}.` : `At ${name} = ${whole(sizes[name])} all agree.`;
    read.classList.toggle("av-bad", apart.length > 0);
    return;
  }
  const broken = data.needs.filter(need => !holds(need));
  read.classList.toggle("av-bad", broken.length > 0);
  read.textContent = broken.length ? `Broken: ${broken.map(need => need[3]).join("; ")}.` : data.needs.length ? `Valid when ${data.needs.map(need => need[3]).join("; ")}.` : "Valid at every size.";
  if (!broken.length && data.tree.some(([, shape]) => shape.some(place => place !== null && at(place) < 1))) {
    read.classList.add("av-bad");
    read.textContent = "Too short: an output would have no values.";
  }
  const near = broken.length ? nearest(changed) : null;
  go.hidden = near === null;
  if (near !== null) {
    go.textContent = `nearest: ${changed} = ${whole(near)}`;
    go.onclick = () => { fields[changed](near); };
  }
};
const fields = {};
data.sliders.forEach(([name, size, low, high, rate]) => {
  sizes[name] = size;
  const field = make("input", { type: "number", min: low, max: high, value: size, "aria-label": `${name} as a number` });
  const moved = slider(name, { low, high, value: size, text: number => (rate ? `${Number((number / rate).toFixed(4))} s` : ""), change: number => set(number) });
  const set = number => {
    sizes[name] = clamp(Math.round(number) || low, low, high);
    changed = name;
    field.value = sizes[name];
    draw();
  };
  fields[name] = number => { moved.input.value = number; moved.input.dispatchEvent(new Event("input")); };
  field.addEventListener("change", () => fields[name](clamp(Math.round(Number(field.value)) || low, low, high)));
  bar.append(moved, field);
});
if (data.lengths) lengths(); else panel.append(...tree(data.tree, 0));
root.querySelector("pre").replaceWith(make("p", {}, make("b", { textContent: root.getAttribute("aria-label") })), bar, read, go, panel);
draw();
