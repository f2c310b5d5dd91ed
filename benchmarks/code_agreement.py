"""What others say of the same source code: how many of their definitions the chunker finds as symbols, by language.

    python benchmarks/code_agreement.py ROOT [ROOT …] [--language NAME] [--typescript FOLDER] [--show N]

ROOT are folders of source code. A language is compared with the first of these that the machine has; the others are
left out, with a line that says so:

- Python: the `ast` module
- Go: the package go/ast, through a small program that `go run` builds
- JavaScript, TypeScript, TSX: the compiler of TypeScript, through Node.js; --typescript names the folder
  `node_modules/typescript`, which `npm install typescript` makes
- C, C++, Java, Ruby, Rust: universal-ctags

Three shares are printed. "found": of their definitions, those that are symbols here, with the same name and sort, on
the same lines. "owner": of those found, the ones with the same type or namespace around them. "theirs": of our symbols
of these sorts, those that they have too. `--show 20` prints twenty of each difference.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
import shutil
import subprocess
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rag_index.components.chunking.code.symbols import CODE_LANGUAGES, symbols_of
from rag_index.components.sources.code import decode_text
from rag_index.components.sources.listing import list_files
from rag_index.errors import TerminalError

HERE = Path(__file__).parent / "agreement"
SORTS = {
    "class": "type", "interface": "type", "enum": "type", "type": "type", "function": "function",
    "method": "function", "constant": "value", "variable": "value", "macro": "macro", "module": "module",
}  # fmt: skip
"""The sorts of our kinds; others say class where we say type, and so on."""
CTAGS_SORTS = {
    "c": {"struct": "type", "union": "type", "enum": "type", "typedef": "type", "function": "function",
          "prototype": "function", "macro": "macro"},
    "java": {"class": "type", "interface": "type", "enum": "type", "annotation": "type", "method": "function"},
    "ruby": {"class": "type", "module": "module", "method": "function", "singletonMethod": "function",
             "alias": "function"},
    "rust": {"struct": "type", "enum": "type", "interface": "type", "typedef": "type", "function": "function",
             "method": "function", "macro": "macro", "module": "module"},
}  # fmt: skip
CTAGS_SORTS["cpp"] = {**CTAGS_SORTS["c"], "class": "type", "namespace": "module"}
CTAGS_NAMES = {"c": "C", "cpp": "C++", "java": "Java", "ruby": "Ruby", "rust": "Rust"}


class Found(NamedTuple):
    """A definition."""

    path: str
    sort: str
    name: str
    owner: str
    """The name of what is around it, without what is around that."""
    first_line: int
    last_line: int = 0


Oracle = Callable[[list[Path], str], Iterator[Found]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", nargs="+", type=Path)
    parser.add_argument("--language", choices=CODE_LANGUAGES)
    parser.add_argument("--typescript", type=Path, help="the folder of the npm package typescript")
    parser.add_argument("--show", type=int, default=0, help="differences to print, of each kind")
    given = parser.parse_args()
    files = read_files(given.roots)
    print(f"{'language':<11}{'files':>7}{'theirs':>9}{'found':>8}{'owner':>8}{'ours':>9}{'theirs':>8}  compared with")
    for language, paths in sorted(files.items()):
        if given.language not in {None, language}:
            continue
        name, oracle = oracle_of(language, given.typescript)
        if oracle is None:
            print(f"{language:<11}{len(paths):>7,}  not compared: {name}")
        else:
            compare(language, paths, name, list(oracle(paths, language)), given.show)


def read_files(roots: list[Path]) -> dict[str, list[Path]]:
    """Return the files that an index of these folders would have, by language."""
    files: dict[str, list[Path]] = defaultdict(list)
    for root in roots:
        for file in list_files(root, [], []).files:
            if file.size <= 1_000_000:
                files[file.language].append(root / file.path)
    return files


def oracle_of(language: str, typescript: Path | None) -> tuple[str, Oracle | None]:
    """Return what a language is compared with, or what is missing for that."""
    if language == "python":
        return "ast", from_ast
    if language == "go":
        return ("go/ast", from_go) if shutil.which("go") else ("go is not installed", None)
    if language in {"javascript", "typescript", "tsx"}:
        if not shutil.which("node") or typescript is None:
            return "it needs Node.js, and --typescript", None
        return "TypeScript's compiler", lambda paths, _: from_program(["node", HERE / "names.js", typescript], paths)
    return ("universal-ctags", from_ctags) if shutil.which("ctags") else ("ctags is not installed", None)


def compare(language: str, paths: list[Path], name: str, theirs: list[Found], show: int) -> None:
    """Print the shares of one language."""
    sorts = {each.sort for each in theirs}
    ours = [each for each in our_symbols(paths, language) if each.sort in sorts]
    waiting: dict[tuple[str, str, str], list[Found]] = defaultdict(list)
    for each in ours:
        waiting[each.path, each.sort, each.name].append(each)
    missing, other_owner, same = [], [], 0
    for each in theirs:
        candidates = waiting[each.path, each.sort, each.name]
        fitting = [one for one in candidates if one.first_line <= each.first_line <= one.last_line]
        if not fitting:
            missing.append(each)
            continue
        best = min(fitting, key=lambda one: (one.owner != each.owner, one.last_line - one.first_line))
        candidates.remove(best)
        if best.owner == each.owner:
            same += 1
        else:
            other_owner.append((each, best.owner))
    found = len(theirs) - len(missing)
    shares = found / max(1, len(theirs)), same / max(1, found)
    more = [each for left in waiting.values() for each in left]
    print(
        f"{language:<11}{len(paths):>7,}{len(theirs):>9,}{shares[0]:>8.2%}{shares[1]:>8.2%}"
        f"{len(ours):>9,}{1 - len(more) / max(1, len(ours)):>8.2%}  {name}"
    )
    for title, differences in (("not found", missing), ("other owner", other_owner), ("only ours", more)):
        for one in random.Random(1).sample(differences, min(show, len(differences))):
            print(f"    {title}: {one}")


def our_symbols(paths: list[Path], language: str) -> Iterator[Found]:
    """Yield the symbols of files, as the chunker finds them."""
    for path in paths:
        text = decode_text(path.read_bytes()).encode()
        try:
            symbols = symbols_of(text, language, seconds=60.0)
        except TerminalError:
            print(f"    timed out: {path}")
            continue
        for one in symbols:
            if one.kind in SORTS:
                owner, last = plain(last_part(one.parent)), text[: one.end].rstrip().count(b"\n") + 1
                yield Found(str(path), SORTS[one.kind], plain(one.name), owner, one.line, last)


def last_part(name: str) -> str:
    """Return the last part of a qualified name."""
    return re.split(r"::|\.", name)[-1]


def plain(name: str) -> str:
    """Return a name without the white space and the arguments that an operator's may have."""
    return "".join(name.split()).partition("<")[0] if re.match(r"operator\b *[\w(]", name) else "".join(name.split())


def from_ast(paths: list[Path], _: str) -> Iterator[Found]:
    """Yield classes, functions and the module's own assignments."""
    for path in paths:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # files that test the parser with invalid Python
            continue
        yield from from_tree(tree, str(path), "")
        for node in tree.body:
            targets = node.targets[:1] if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets if isinstance(node, ast.Assign | ast.AnnAssign) else []:
                if isinstance(target, ast.Name):
                    yield Found(str(path), "value", target.id, "", node.lineno)


def from_tree(tree: ast.AST, path: str, owner: str) -> Iterator[Found]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            sort = "type" if isinstance(node, ast.ClassDef) else "function"
            yield Found(path, sort, node.name, owner, node.lineno)
            yield from from_tree(node, path, node.name)
        else:
            yield from from_tree(node, path, owner)


def from_go(paths: list[Path], _: str) -> Iterator[Found]:
    return from_program(["go", "run", HERE / "names.go"], paths)


def from_program(command: list[str | Path], paths: list[Path]) -> Iterator[Found]:
    """Yield the definitions that a program prints, which reads the names of files."""
    listed = "\n".join(map(str, paths))
    printed = subprocess.run(command, input=listed, stdout=subprocess.PIPE, text=True, check=True).stdout
    for line in printed.splitlines():
        path, sort, name, owner, number = line.split("\t")
        yield Found(path, sort, name, owner, int(number))


def from_ctags(paths: list[Path], language: str) -> Iterator[Found]:
    name, sorts = CTAGS_NAMES[language], CTAGS_SORTS[language]
    prototypes = [f"--kinds-{name}=+p"] if language in {"c", "cpp"} else []
    command = ["ctags", "--output-format=json", "--fields=+nK", f"--language-force={name}", *prototypes, "-L", "-"]
    listed = "\n".join(map(str, paths))
    printed = subprocess.run(
        [*command, "-f", "-"], input=listed.encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    for line in printed.stdout.decode(errors="replace").splitlines():
        tag = json.loads(line)
        if tag.get("kind") in sorts and not tag["name"].startswith("__anon"):
            scope = [part for part in re.split(r"::|\.", tag.get("scope", "")) if not part.startswith("__anon")]
            owner = scope[-1].partition("<")[0] if scope else ""
            if not (tag["kind"] == "macro" and is_guard(tag)):
                yield Found(tag["path"], sorts[tag["kind"]], plain(tag["name"]), plain(owner), tag["line"])


def is_guard(tag: dict[str, Any]) -> bool:
    """Return whether a macro only keeps a header from being read twice."""
    lines = decode_text(Path(tag["path"]).read_bytes()).split("\n")
    around = "\n".join(lines[max(0, tag["line"] - 4) : tag["line"]])
    return bool(re.search(rf"#\s*ifndef\s+{tag['name']}\s[^#]*#\s*define\s+{tag['name']}\s*(/[/*].*)?$", around))


if __name__ == "__main__":
    main()
