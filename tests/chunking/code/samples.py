"""A small file of each language, and the symbols that some of them define."""

SAMPLES = {
    "python": '''import os

LIMIT = 3


# How often.
# And how long.
@policy(times=3)
def retry(call, *, times: int = LIMIT) -> None:
    """Try a call again.

    Not more than that.
    """
    for _ in range(times):
        call()


class Größe(dict):
    \'\'\'Of a thing.\'\'\'

    class Inner:
        async def deep(self, a,
                       b): return 1
''',
    "javascript": """// What is retried.
const retry = (call, times) => {
  return call();
};

/**
 * A queue.
 */
export class Queue extends Array {
  push(item) { return super.push(item); }
}

function* all(queue) { yield* queue; }
module.exports.all = function (x) { return x; };
console.log("done with all of it");
""",
    "typescript": """import { a } from "./a";

/** How. */
export interface Options { retries: number; after(ms: number): void }
enum Level { Low, High }

export abstract class Client<T> {
  private items: T[] = [];
  get(key: string): T | undefined { return this.items[0]; }
}

export function make<T>(options: Options): Client<T> | null { return null; }
""",
    "tsx": """// Shows a name.
export function Label(props: { name: string }) {
  return <span className="label">{props.name}</span>;
}

export const Button = ({ on }: { on: () => void }) => <button onClick={on}>Press</button>;
""",
    "go": """package queue

// Queue holds items.
type Queue struct {
	items []string
}

// Push adds one,
// at the end.
func (q *Queue) Push(item string) error {
	return nil
}

type (
	First int
	Second interface{ Do() }
)
""",
    "rust": """use std::fmt;

/// A queue of things.
#[derive(Debug)]
pub struct Queue<T> { items: Vec<T> }

impl<T> Queue<T> {
    /// Adds one.
    pub fn push(&mut self, item: T) -> usize { self.items.push(item); self.items.len() }
}

macro_rules! twice { ($e:expr) => { $e + $e }; }
""",
    "java": """package org.example;

/**
 * Keeps items.
 */
public class Store<T> extends Base {
    private final int size;

    // Finds one.
    @Override
    public T find(String key) throws Exception { return null; }
}

interface Shape { double area(); }
""",
    "c": """#include <stdio.h>

#define TWICE(x) ((x) + (x))

/* A point. */
struct point { int x, y; };

// Adds two.
static int *add(int (*each)(int), Point *p)
{
    return 0;
}
int declared(void);
""",
    "cpp": """namespace shop {

// What is sold.
class Item {
public:
    explicit Item(std::string name);
    const std::string& name() const { return name_; }
};

}  // namespace shop

shop::Item::Item(std::string name) : name_(name) {}

template <typename T>
T largest(T a, T b) { return a > b ? a : b; }
""",
    "ruby": """require "json"

# Things for sale.
module Shop
  class Item < Base
    LIMIT = 3

    # Its name.
    def name
      @name
    end
    def self.all(size: 3) = []
  end
end
""",
}

SYMBOLS = {
    "python": [
        ("constant", "LIMIT", "LIMIT = 3", "", 3),
        ("function", "retry", "def retry(call, *, times: int = LIMIT) -> None", "Try a call again.", 9),
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
        ("method", "Queue.Push", "func (q *Queue) Push(item string) error", "Push adds one, at the end.", 10),
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
        ("method", "Store.find", "@Override public T find(String key) throws Exception", "Finds one.", 10),
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
