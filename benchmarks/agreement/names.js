// Print what TypeScript's own parser says that files define, one line each: path, sort, name, owner, line.
// The first argument is the folder of the package typescript; the names of the files are read from standard input.
const fs = require("fs");
const path = require("path");
const ts = require(path.resolve(process.argv[2]));

const isFunction = (node) => node && (ts.isArrowFunction(node) || ts.isFunctionExpression(node));
const plain = (node) => {
  while (node && (ts.isParenthesizedExpression(node) || ts.isAsExpression(node) || ts.isSatisfiesExpression(node)))
    node = node.expression;
  return node;
};
const isAmbient = (node) =>
  node.parent.parent.modifiers?.some((each) => each.kind === ts.SyntaxKind.DeclareKeyword);
// assigned returns what `Name.prototype.method = function` and the like define.
const assigned = ({ left, right }) => {
  const value = plain(right);
  const sort = isFunction(value) ? "function" : ts.isClassExpression(value) ? "type" : "";
  if (!sort || left.getText() === "module.exports") return undefined;
  if (ts.isIdentifier(left)) return { sort, name: left.text };
  if (!ts.isPropertyAccessExpression(left) || !ts.isIdentifier(left.name)) return undefined;
  const object = left.expression.getText().replace(/\.prototype$/, "");
  const plainObject = /^[\w$]+(\.[\w$]+)*$/.test(object);
  const outside = ["exports", "module.exports", "module", "this", "window", "self", "global", "globalThis"];
  return { sort, name: left.name.text, owner: plainObject && !outside.includes(object) ? object.split(".").pop() : "" };
};
const isRequire = (node) => node && ts.isCallExpression(node) && node.expression.getText() === "require";

function* names(node, owner, top) {
  const name = node.name && !ts.isComputedPropertyName(node.name) && node.name.text;
  let sort = "";
  let inner = owner;
  const value = plain(node.initializer);
  if (ts.isFunctionDeclaration(node)) sort = "function";
  else if (ts.isMethodDeclaration(node) || ts.isMethodSignature(node)) sort = "function";
  else if (ts.isGetAccessor(node) || ts.isSetAccessor(node)) sort = "function";
  else if (ts.isClassDeclaration(node) || ts.isInterfaceDeclaration(node)) sort = "type";
  else if (ts.isEnumDeclaration(node) || ts.isTypeAliasDeclaration(node)) sort = "type";
  else if (ts.isModuleDeclaration(node)) sort = "module";
  else if ((ts.isPropertyDeclaration(node) || ts.isPropertyAssignment(node)) && isFunction(value)) sort = "function";
  else if (ts.isVariableDeclaration(node) && ts.isIdentifier(node.name)) {
    if (isFunction(value)) sort = "function";
    else if (value && ts.isClassExpression(value)) sort = "type";
    else if (top && (value ? !isRequire(value) : isAmbient(node))) sort = "value";
  } else if (ts.isConstructorDeclaration(node)) yield ["function", "constructor", owner, node];
  if (ts.isBinaryExpression(node) && node.operatorToken.kind === ts.SyntaxKind.EqualsToken) {
    const found = assigned(node);
    if (found) {
      yield [found.sort, found.name, found.owner || owner, node];
      inner = found.name;
    }
  } else if (sort && name) {
    yield [sort, name, owner, node.name];
    inner = name;
  } else if (ts.isClassExpression(node) && node.name) {
    inner = node.name.text;
  }
  const within = top && (ts.isSourceFile(node) || ts.isVariableStatement(node) || ts.isVariableDeclarationList(node) ||
    ts.isModuleDeclaration(node) || ts.isModuleBlock(node));
  const children = [];
  node.forEachChild((child) => { children.push(child); });
  for (const child of children) yield* names(child, inner, within);
}

for (const file of fs.readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const text = fs.readFileSync(file, "utf8");
  const kind = /\.[jt]sx$/.test(file) ? (file.endsWith("tsx") ? ts.ScriptKind.TSX : ts.ScriptKind.JSX) : undefined;
  const tree = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true, kind);
  if (tree.parseDiagnostics.length) continue;
  let out = "";
  for (const [sort, name, owner, node] of names(tree, "", true)) {
    const line = tree.getLineAndCharacterOfPosition(node.getStart()).line + 1;
    out += [file, sort, name.replace(/\s/g, " "), owner.replace(/\s/g, " "), line].join("\t") + "\n";
  }
  process.stdout.write(out);
}
