"""A small file of each language, in `files`, and the symbols that some of them define."""

from pathlib import Path

FILES = Path(__file__).parent / "files"
SAMPLES = {file.stem: file.read_text(encoding="utf-8") for file in FILES.glob("*.txt")}

SYMBOLS = {
    "python": [
        ("constant", "LIMIT", "LIMIT = 3", "", 3),
        (
            "function",
            "retry",
            "def retry(call, *, times: int = LIMIT) -> None",
            "Try a call again.",
            9,
        ),
        ("class", "Größe", "class Größe(dict)", "Of a thing.", 18),
        ("class", "Größe.Inner", "class Inner", "", 21),
        ("method", "Größe.Inner.deep", "async def deep(self, a, b)", "", 22),
    ],
    "javascript": [
        ("function", "retry", "const retry = (call, times)", "What is retried.", 2),
        ("class", "Queue", "class Queue extends Array", "A queue.", 9),
        ("method", "Queue.push", "push(item)", "", 10),
        ("function", "all", "function* all(queue)", "", 13),
        ("function", "all", "module.exports.all = function (x)", "", 14),
    ],
    "typescript": [
        ("interface", "Options", "interface Options", "How.", 4),
        ("method", "Options.after", "after(ms: number): void", "", 4),
        ("enum", "Level", "enum Level", "", 5),
        ("class", "Client", "abstract class Client<T>", "", 7),
        ("method", "Client.get", "get(key: string): T | undefined", "", 9),
        ("function", "make", "function make<T>(options: Options): Client<T> | null", "", 12),
    ],
    "tsx": [
        ("function", "Label", "function Label(props: { name: string })", "Shows a name.", 2),
        ("function", "Button", "const Button = ({ on }: { on: () => void })", "", 6),
    ],
    "go": [
        ("type", "Queue", "type Queue struct", "Queue holds items.", 4),
        (
            "method",
            "Queue.Push",
            "func (q *Queue) Push(item string) error",
            "Push adds one, at the end.",
            10,
        ),
        ("type", "First", "First int", "", 15),
        ("type", "Second", "Second interface{ Do() }", "", 16),
        ("method", "Second.Do", "Do()", "", 16),
    ],
    "rust": [
        ("class", "Queue", "pub struct Queue<T>", "A queue of things.", 5),
        ("implementation", "Queue", "impl<T> Queue<T>", "", 7),
        ("method", "Queue::push", "pub fn push(&mut self, item: T) -> usize", "Adds one.", 9),
        ("macro", "twice", "macro_rules! twice { ($e:expr) => { $e + $e }; }", "", 12),
    ],
    "java": [
        ("class", "Store", "public class Store<T> extends Base", "Keeps items.", 6),
        (
            "method",
            "Store.find",
            "@Override public T find(String key) throws Exception",
            "Finds one.",
            10,
        ),
        ("interface", "Shape", "interface Shape", "", 14),
        ("method", "Shape.area", "double area()", "", 14),
    ],
    "c": [
        ("macro", "TWICE", "#define TWICE(x) ((x) + (x))", "", 3),
        ("class", "point", "struct point", "A point.", 6),
        ("function", "add", "static int *add(int (*each)(int), Point *p)", "Adds two.", 9),
        ("function", "declared", "int declared(void)", "", 13),
    ],
}
"""For each symbol: kind, qualified name, signature, docstring, line."""
