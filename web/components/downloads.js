// Links that save files. A long list of files does not fit an address: it is sent as a form.

export default function ({ data, parentElement }) {
  let row = parentElement.querySelector(".row");
  if (!row) {
    row = document.createElement("div");
    row.className = "row";
    parentElement.append(row);
  }
  const known = JSON.stringify(data);
  if (row.dataset.known !== known) {
    row.dataset.known = known;
    row.replaceChildren(...data.map((one) => (one.token ? form(one) : link(one))));
  }
  return () => row.remove();
}

function link({ label, address, primary }) {
  const made = document.createElement("a");
  made.href = address;
  made.download = "";
  made.textContent = label;
  made.className = primary ? "primary" : "";
  return made;
}

function form({ label, address, token, primary }) {
  const made = document.createElement("form");
  made.method = "post";
  made.action = address;
  const field = document.createElement("input");
  Object.assign(field, { type: "hidden", name: "token", value: token });
  const button = document.createElement("button");
  button.textContent = label;
  button.className = primary ? "primary" : "";
  made.append(field, button);
  return made;
}
