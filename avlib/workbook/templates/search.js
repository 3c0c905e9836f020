const sections = JSON.parse(document.querySelector("#sections").textContent);
const box = document.querySelector("input[type=search]");
const list = document.querySelector("#found");
const told = document.querySelector("[role=status]");

function find() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [];
  for (const [page, anchor, title, text] of words.length ? sections : []) {
    const heading = title.toLowerCase(), all = `${heading} ${text.toLowerCase()}`;
    if (words.every((word) => all.includes(word))) {
      found.push({ page, anchor, title, text, rank: words.filter((word) => heading.includes(word)).length });
    }
  }
  found.sort((one, other) => other.rank - one.rank);
  told.textContent = words.length ? `${found.length} section${found.length === 1 ? "" : "s"}` : "";
  list.replaceChildren(...found.slice(0, 50).map((each) => {
    const item = document.createElement("li"), link = document.createElement("a"), around = document.createElement("p");
    link.href = `${encodeURIComponent(each.page)}#${encodeURIComponent(each.anchor)}`;
    link.textContent = each.title;
    const place = Math.max(0, each.text.toLowerCase().indexOf(words[0]) - 80);
    around.textContent = `${place ? "… " : ""}${each.text.slice(place, place + 240)} …`;
    item.append(link, around);
    return item;
  }));
}

box.value = new URLSearchParams(location.search).get("q") || "";
box.addEventListener("input", find);
find();
