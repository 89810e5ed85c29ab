// demon in VS Code, over `demon lsp`. The server colours, checks and completes; keys evaluate.
const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

function activate(context) {
  const command = vscode.workspace.getConfiguration("demon").get("command");
  const options = { documentSelector: [{ language: "demon" }] };
  client = new LanguageClient("demon", "demon", { command, args: ["lsp"] }, options);
  const run = (word, args) =>
    client.sendRequest("workspace/executeCommand", { command: `demon.${word}`, arguments: args });
  const add = (name, call) =>
    context.subscriptions.push(vscode.commands.registerTextEditorCommand(name, call));
  add("demon.editor.block", ({ document, selection }) =>
    run("evaluate", [document.uri.toString(), selection.start.line, selection.end.line]));
  add("demon.editor.file", ({ document }) => run("evaluateFile", [document.uri.toString()]));
  add("demon.editor.hush", () => run("hush", []));
  return client.start();
}

function deactivate() {
  return client && client.stop();
}

module.exports = { activate, deactivate };
