// @ts-check
import { MailroomFiles, UploadError } from "../mailroom-files.js";

/** @import { Category, MailroomFile, Progress } from "../mailroom-files.d.ts" */

/** @template {Element} T @param {string} selector @param {new () => T} kind @param {ParentNode} [root] @returns {T} */
function find(selector, kind, root = document) {
  const found = root.querySelector(selector);
  if (!(found instanceof kind)) throw new Error(`the page has no ${selector}`);
  return found;
}

/** A copy of what a template holds. @param {string} selector */
function copy(selector) {
  const content = find(selector, HTMLTemplateElement).content.cloneNode(true);
  return find("li", HTMLLIElement, /** @type {DocumentFragment} */ (content));
}

const tokenField = find("#token", HTMLInputElement);
const category = find("#category", HTMLSelectElement);
const chosen = find("#chosen", HTMLInputElement);
const drop = find("#drop", HTMLElement);
const uploads = find("#uploads", HTMLElement);
const files = find("#files", HTMLElement);
const note = find("#files-note", HTMLElement);

let token = "";
const mailroom = new MailroomFiles({ token: () => token });

// --- words -------------------------------------------------------------------------------------------------------

/** @param {number} bytes */
function inWords(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; bytes >= 999.5 && unit < units.length - 1; unit += 1) bytes /= 1000;
  const digits = unit > 0 && bytes < 10 ? 1 : 0;
  return `${bytes.toLocaleString("en", { maximumFractionDigits: digits })} ${unit === 0 && bytes === 1 ? "byte" : units[unit]}`;
}

/** @param {Progress} progress */
function stateInWords({ phase, loaded, total, resumed }) {
  if (phase === "preparing") return "Preparing …";
  if (phase === "finishing") return "Checking …";
  if (phase === "waiting") return navigator.onLine ? "The connection is bad. Trying again …" : "You are offline. It goes on when you are back.";
  const share = `${Math.floor((100 * loaded) / total)} % of ${inWords(total)}`;
  return resumed > 0 ? `${share}, ${inWords(resumed)} of it from before` : share;
}

/** @param {unknown} error @param {Category} [into] */
function errorInWords(error, into) {
  if (!(error instanceof UploadError)) return "Something went wrong in this page. Load it again.";
  if (error.status === 401) return "You are not signed in, or your token has run out. Give a token under “Access”.";
  return `${happened(error, into).replace(/(\d+) bytes/g, (_, bytes) => inWords(Number(bytes)))} ${error.advice}`;
}

/** @param {UploadError} error @param {Category} [into] */
function happened(error, into) {
  if (error.code === "typeRefused" && error.details.some((each) => each.reason === "typeMismatch")) return "The file is not what its name says.";
  if (error.code === "typeRefused" && error.details.some((each) => each.field === "contentType") && into) return `Files of this type are not taken as “${labelOf(into)}”.`;
  return error.message;
}

/** To those who listen instead of looking. @param {string} text */
function say(text) {
  find("#said", HTMLElement).textContent = text;
}

// --- uploading ---------------------------------------------------------------------------------------------------

/** @param {File} file @param {Category} into */
function start(file, into) {
  const card = copy("#upload-card");
  const bar = find("progress", HTMLProgressElement, card);
  const state = find(".state", HTMLElement, card);
  const [cancel, again, dismiss] = [".cancel", ".again", ".dismiss"].map((each) => find(each, HTMLButtonElement, card));
  if (!cancel || !again || !dismiss) return;
  find(".name", HTMLElement, card).textContent = file.name;
  find(".size", HTMLElement, card).textContent = inWords(file.size);
  bar.setAttribute("aria-label", `Progress of ${file.name}`);
  for (const button of [cancel, again, dismiss]) button.setAttribute("aria-label", `${button.textContent}: ${file.name}`);
  let controller = new AbortController();

  /** @param {"running" | "done" | "failed"} how @param {string} words @param {boolean} repeatable */
  const show = (how, words, repeatable) => {
    const held = card.contains(document.activeElement);
    card.className = how;
    state.textContent = words;
    cancel.hidden = how !== "running";
    again.hidden = !repeatable;
    dismiss.hidden = how === "running";
    if (held) [cancel, again, dismiss].find((button) => !button.hidden)?.focus(); // not lost with the button that had it
  };

  const run = async () => {
    controller = new AbortController();
    show("running", "Preparing …", false);
    say(`${file.name}: upload started.`);
    try {
      const done = await mailroom.upload(file, {
        category: into,
        signal: controller.signal,
        onProgress(progress) {
          bar.value = progress.loaded / progress.total;
          state.textContent = stateInWords(progress);
          card.classList.toggle("waiting", progress.phase === "waiting");
        },
      });
      bar.value = 1;
      show("done", "Uploaded.", false);
      say(`${file.name}: uploaded.`);
      addFile(done);
    } catch (error) {
      const cancelled = error instanceof UploadError && error.code === "aborted";
      const repeatable = error instanceof UploadError && (error.again || error.status === 401 || error.code === "expired");
      show("failed", cancelled ? "Cancelled." : errorInWords(error, into), cancelled || repeatable);
      say(`${file.name}: ${state.textContent}`);
      if (error instanceof UploadError && error.status === 401) askForToken();
    }
    await showUnfinished();
  };

  cancel.addEventListener("click", () => controller.abort());
  again.addEventListener("click", run);
  dismiss.addEventListener("click", () => {
    card.remove();
    chosen.focus();
  });
  uploads.prepend(card);
  return run();
}

/** @param {Iterable<File>} list */
async function startAll(list) {
  const into = /** @type {Category} */ (category.value);
  const running = [...list].map((file) => start(file, into));
  await showUnfinished();
  await Promise.all(running);
}

chosen.addEventListener("change", () => {
  const list = [...(chosen.files ?? [])];
  chosen.value = ""; // choosing the same file again is a change too
  void startAll(list);
});

for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  // A folder looks like a file without a type, and cannot be read.
  const items = [...(event.dataTransfer?.items ?? [])].filter((item) => item.kind === "file");
  void startAll(items.flatMap((item) => (item.webkitGetAsEntry()?.isDirectory ? [] : (item.getAsFile() ?? []))));
});
// Beside the place for it, a dropped file would replace the page and end what runs.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
addEventListener("beforeunload", (event) => {
  if (uploads.querySelector(".running")) event.preventDefault();
});

// --- what was begun before -----------------------------------------------------------------------------------------

async function showUnfinished() {
  const found = await mailroom.unfinished();
  const failed = new Set([...uploads.querySelectorAll(".failed .name")].map((each) => each.textContent));
  const cards = found.filter((record) => !failed.has(record.name)).map((record) => {
    const card = copy("#unfinished-card");
    const discard = find(".discard", HTMLButtonElement, card);
    find(".name", HTMLElement, card).textContent = record.name;
    find(".size", HTMLElement, card).textContent = `${inWords(record.size)}, as ${labelOf(record.category)}`;
    discard.setAttribute("aria-label", `Discard: ${record.name}`);
    discard.addEventListener("click", async () => {
      discard.disabled = true;
      await mailroom.discard(record).catch(() => undefined); // the service ends it by itself in time
      say(`${record.name}: discarded.`);
      await showUnfinished();
      chosen.focus();
    });
    return card;
  });
  find("#unfinished-list", HTMLElement).replaceChildren(...cards);
  find("#unfinished", HTMLElement).hidden = cards.length === 0;
}

/** @param {string} value */
function labelOf(value) {
  return [...category.options].find((option) => option.value === value)?.text.toLowerCase() ?? value;
}

// --- what there is -------------------------------------------------------------------------------------------------

/** @param {MailroomFile} file @returns {HTMLLIElement} */
function line(file) {
  const item = copy("#file-line");
  const download = find(".download", HTMLButtonElement, item);
  const state = find(".state", HTMLElement, item);
  const day = new Date(file.createdAt).toLocaleDateString("en", { dateStyle: "medium" });
  item.dataset["fileId"] = file.fileId;
  find(".name", HTMLElement, item).textContent = file.originalName;
  find(".about", HTMLElement, item).textContent = `${inWords(file.size ?? 0)} · ${labelOf(file.category)} · ${day}`;
  download.setAttribute("aria-label", `Download ${file.originalName}`);
  download.addEventListener("click", async () => {
    state.hidden = true;
    download.disabled = true;
    try {
      const { url } = await mailroom.downloadLink(file.fileId);
      const link = Object.assign(document.createElement("a"), { href: url, target: "_blank", rel: "noopener" });
      link.click();
    } catch (error) {
      state.textContent = errorInWords(error);
      state.hidden = false;
      say(`${file.originalName}: ${state.textContent}`);
    } finally {
      download.disabled = false;
    }
  });
  return item;
}

/** Known from the upload's own answer, before the list has it. @param {MailroomFile} file */
function addFile(file) {
  files.querySelector(`[data-file-id="${CSS.escape(file.fileId)}"]`)?.remove();
  files.prepend(line(file));
  note.hidden = true;
}

async function showFiles() {
  try {
    const { files: found } = await mailroom.list({ status: "completed", limit: 20 });
    files.replaceChildren(...found.map(line));
    note.textContent = "Nothing here yet.";
    note.hidden = found.length > 0;
  } catch (error) {
    note.textContent = errorInWords(error);
    note.hidden = false;
    if (error instanceof UploadError && error.status === 401) askForToken();
  }
}

function askForToken() {
  find("#access", HTMLDetailsElement).open = true;
}

find("#access-form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  token = tokenField.value.trim();
  tokenField.value = "";
  find("#access", HTMLDetailsElement).open = false;
  void showFiles();
});

void showUnfinished();
void showFiles();
