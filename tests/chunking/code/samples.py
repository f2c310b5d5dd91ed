"""A small file of each language, and the symbols that it defines."""

from __future__ import annotations

__all__ = ["SAMPLES", "SYMBOLS"]

SAMPLES = {
    "python": '''"""A module."""

import os

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
  constructor(size) { super(); this.size = size; }
  push(item) { return super.push(item); }
}

function* all(queue) { yield* queue; }
module.exports.all = function (x) { return x; };
console.log("done with all of it");
""",
    "typescript": """import { a } from "./a";

/** How. */
export interface Options { retries: number; after(ms: number): void }
export type Name = string | undefined;
enum Level { Low, High }

export abstract class Client<T> {
  private items: T[] = [];
  constructor(private readonly name: string) {}
  get(key: string): T | undefined { return this.items[0]; }
}

export function make<T>(options: Options): Client<T> | null { return null; }
namespace inner { export const x = 1; }
""",
    "tsx": """// Shows a name.
export function Label(props: { name: string }) {
  return <span className="label">{props.name}</span>;
}

export const Button = ({ on }: { on: () => void }) => <button onClick={on}>Press</button>;
""",
    "go": """package queue

import "errors"

// Queue holds items.
type Queue struct {
	items []string
}

// Push adds one,
// at the end.
func (q *Queue) Push(item string) error {
	q.items = append(q.items, item)
	return nil
}

func New() *Queue { return &Queue{} }

type (
	First int
	Second interface{ Do() }
)
""",
    "rust": """//! A crate.
use std::fmt;

/// A queue of things.
#[derive(Debug)]
pub struct Queue<T> { items: Vec<T> }

impl<T> Queue<T> {
    /// Adds one.
    pub fn push(&mut self, item: T) -> usize { self.items.push(item); self.items.len() }
}

pub trait Shape { fn area(&self) -> f64; }

mod inner {
    pub fn helper(x: i32) -> i32 { x }
}

macro_rules! twice { ($e:expr) => { $e + $e }; }
""",
    "java": """package org.example;

import java.util.List;

/**
 * Keeps items.
 */
public class Store<T> extends Base {
    private final int size;

    public Store(int size) { this.size = size; }

    // Finds one.
    @Override
    public T find(String key) throws Exception { return null; }

    enum Level { LOW, HIGH }
}

interface Shape { double area(); }
""",
    "c": """#include <stdio.h>

#define TWICE(x) ((x) + (x))

/* A point. */
struct point { int x, y; };

typedef struct point Point;

// Adds two.
static int *add(int (*each)(int), Point *p)
{
    return 0;
}

int declared(void);
""",
    "cpp": """#include <string>

namespace shop {

// What is sold.
class Item {
public:
    explicit Item(std::string name);
    ~Item();
    const std::string& name() const { return name_; }
private:
    std::string name_;
};

}  // namespace shop

shop::Item::Item(std::string name) : name_(name) {}

template <typename T>
T largest(T a, T b) { return a > b ? a : b; }
""",
    "ruby": """require "json"

# Things for sale.
module Shop
  # One of them.
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
        ("constant", "LIMIT", "LIMIT = 3", "", 5),
        ("function", "retry", "def retry(call, *, times: int = LIMIT) -> None", "Try a call again.", 11),
        ("class", "Größe", "class Größe(dict)", "Of a thing.", 20),
        ("class", "Größe.Inner", "class Inner", "", 23),
        ("method", "Größe.Inner.deep", "async def deep(self, a, b)", "", 24),
    ],
    "javascript": [
        ("function", "retry", "const retry = (call, times)", "What is retried.", 2),
        ("class", "Queue", "class Queue extends Array", "A queue.", 9),
        ("method", "Queue.constructor", "constructor(size)", "", 10),
        ("method", "Queue.push", "push(item)", "", 11),
        ("function", "all", "function* all(queue)", "", 14),
        ("function", "all", "module.exports.all = function (x)", "", 15),
    ],
    "typescript": [
        ("interface", "Options", "interface Options", "How.", 4),
        ("method", "Options.after", "after(ms: number): void", "", 4),
        ("type", "Name", "type Name = string | undefined", "", 5),
        ("enum", "Level", "enum Level", "", 6),
        ("class", "Client", "abstract class Client<T>", "", 8),
        ("method", "Client.constructor", "constructor(private readonly name: string)", "", 10),
        ("method", "Client.get", "get(key: string): T | undefined", "", 11),
        ("function", "make", "function make<T>(options: Options): Client<T> | null", "", 14),
        ("module", "inner", "namespace inner", "", 15),
        ("constant", "inner.x", "const x = 1", "", 15),
    ],
    "tsx": [
        ("function", "Label", "function Label(props: { name: string })", "Shows a name.", 2),
        ("function", "Button", "const Button = ({ on }: { on: () => void })", "", 6),
    ],
    "go": [
        ("type", "Queue", "type Queue struct", "Queue holds items.", 6),
        ("method", "Queue.Push", "func (q *Queue) Push(item string) error", "Push adds one, at the end.", 12),
        ("function", "New", "func New() *Queue", "", 17),
        ("type", "First", "First int", "", 20),
        ("type", "Second", "Second interface{ Do() }", "", 21),
        ("method", "Second.Do", "Do()", "", 21),
    ],
    "rust": [
        ("class", "Queue", "pub struct Queue<T>", "A queue of things.", 6),
        ("implementation", "Queue", "impl<T> Queue<T>", "", 8),
        ("method", "Queue::push", "pub fn push(&mut self, item: T) -> usize", "Adds one.", 10),
        ("interface", "Shape", "pub trait Shape", "", 13),
        ("method", "Shape::area", "fn area(&self) -> f64", "", 13),
        ("module", "inner", "mod inner", "", 15),
        ("function", "inner::helper", "pub fn helper(x: i32) -> i32", "", 16),
        ("macro", "twice", "macro_rules! twice { ($e:expr) => { $e + $e }; }", "", 19),
    ],
    "java": [
        ("class", "Store", "public class Store<T> extends Base", "Keeps items.", 8),
        ("method", "Store.Store", "public Store(int size)", "", 11),
        ("method", "Store.find", "@Override public T find(String key) throws Exception", "Finds one.", 14),
        ("enum", "Store.Level", "enum Level", "", 17),
        ("interface", "Shape", "interface Shape", "", 20),
        ("method", "Shape.area", "double area()", "", 20),
    ],
    "c": [
        ("macro", "TWICE", "#define TWICE(x) ((x) + (x))", "", 3),
        ("class", "point", "struct point", "A point.", 6),
        ("type", "Point", "typedef struct point Point", "", 8),
        ("function", "add", "static int *add(int (*each)(int), Point *p)", "Adds two.", 11),
        ("function", "declared", "int declared(void)", "", 16),
    ],
    "cpp": [
        ("module", "shop", "namespace shop", "", 3),
        ("class", "shop::Item", "class Item", "What is sold.", 6),
        ("method", "shop::Item::Item", "explicit Item(std::string name)", "", 8),
        ("method", "shop::Item::~Item", "~Item()", "", 9),
        ("method", "shop::Item::name", "const std::string& name() const", "", 10),
        ("method", "shop::Item::Item", "shop::Item::Item(std::string name) : name_(name)", "", 17),
        ("function", "largest", "template <typename T> T largest(T a, T b)", "", 19),
    ],
    "ruby": [
        ("module", "Shop", "module Shop", "Things for sale.", 4),
        ("class", "Shop::Item", "class Item < Base", "One of them.", 6),
        ("constant", "Shop::Item::LIMIT", "LIMIT = 3", "", 7),
        ("method", "Shop::Item::name", "def name", "Its name.", 10),
        ("method", "Shop::Item::all", "def self.all(size: 3)", "", 14),
    ],
}
"""For each symbol: kind, qualified name, signature, docstring, line."""
