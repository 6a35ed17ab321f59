// Passes images of the clipboard to Streamlit's file uploader, and a URL to the page.

const UPLOADER = '[data-testid="stFileUploader"] input[type="file"]';
const URL_PATTERN = /^https?:\/\/\S+$/i;

export default function ({ parentElement, setTriggerValue }) {
  let button = parentElement.querySelector("button");
  if (!button) {
    button = document.createElement("button");
    button.type = "button";
    button.textContent = "Paste";
    button.title = "Paste an image or a URL. Ctrl+V works anywhere on this page.";
    const status = document.createElement("span");
    status.setAttribute("role", "status");
    parentElement.append(button, status);
  }
  const status = parentElement.querySelector("span");
  const say = (text) => { status.textContent = text; };

  const take = (files, text) => {
    say("");
    if (files.length) return drop(files, say);
    const address = text.trim();
    if (URL_PATTERN.test(address)) setTriggerValue("url", address);
    else say("The clipboard has no image and no URL.");
  };

  const onPaste = (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    const target = event.composedPath()[0];
    const typing = target?.matches?.("input, textarea, [contenteditable]") && target.type !== "range";
    const text = event.clipboardData?.getData("text/plain") ?? "";
    if (typing && !files.length) return;
    if (!files.length && !URL_PATTERN.test(text.trim())) return;
    event.preventDefault();
    take(files, text);
  };
  document.addEventListener("paste", onPaste);
  button._stop?.();
  button._stop = () => document.removeEventListener("paste", onPaste);
  button.onclick = () => read().then(([files, text]) => take(files, text), () =>
    say("The browser blocked access to the clipboard. Press Ctrl+V instead."));

  return () => {
    button._stop();
    button.remove();
    status.remove();
  };
}

async function read() {
  const files = [];
  let text = "";
  for (const item of await navigator.clipboard.read()) {
    const type = item.types.find((one) => one.startsWith("image/"));
    if (type) files.push(new File([await item.getType(type)], `pasted.${type.slice(6)}`, { type }));
    else if (item.types.includes("text/plain")) text = await (await item.getType("text/plain")).text();
  }
  return [files, text];
}

function drop(files, say) {
  const input = document.querySelector(UPLOADER);
  if (!input) return say("The page is not ready yet. Try again.");
  const transfer = new DataTransfer();
  files.forEach((file) => transfer.items.add(file));
  input.files = transfer.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}
