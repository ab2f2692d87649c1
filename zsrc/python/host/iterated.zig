//! What C code between two frames of Python holds if it goes through an iterator, or calls a
//! function for each of many items: `list(generator)`, `for x in map(f, items)`, `sorted(items,
//! key=f)`. Code that goes through an iterator has a reference to it, beside that on the caller's
//! stack. Code that calls a function has one to the item that it passes, and the called frame shows
//! which one that is. Only those functions and types are known here that do so in C on all Pythons,
//! with iterators that call nothing else. See called.zig for calls of one's own.
const std = @import("std");
const py = @import("../py.zig");
const frames = @import("../run/frames.zig");
const called = @import("called.zig");
const Entry = frames.Entry;
const InterpreterFrame = frames.InterpreterFrame;

/// The references of C code between a frame and the one that it has called.
pub fn eachReference(
    caller: Entry,
    inner: Entry,
    context: anytype,
    comptime visit: fn (@TypeOf(context), *py.Object) void,
) void {
    const outer = InterpreterFrame.of(caller.object) orelse return;
    const frame = InterpreterFrame.of(inner.object) orelse return;
    if (py.minor() >= 14 and !frame.isCalledByC()) return;
    const way = wayOf(caller, outer, frame) orelse return;
    if (way.gone_through) |it| for (0..way.times) |_| visit(context, it);
    if (!way.passes_items) return;
    const items = called.Arguments.of(frame, inner.parameters orelse return, 0, null) orelse return;
    for (0..items.count()) |i| visit(context, items.at(i).?);
}

const Way = struct {
    /// What the C code goes through, and how many references it has to that.
    gone_through: ?*py.Object = null,
    times: usize = 1,
    /// Whether it has one to each argument of the frame.
    passes_items: bool = false,
};

/// Null if it is not certain.
fn wayOf(caller: Entry, outer: InterpreterFrame, frame: InterpreterFrame) ?Way {
    const slots = caller.operandsOf(outer) orelse return null;
    return switch (caller.kind) {
        .for_iter => wayThrough(slots[0].object() orelse return null, 0, frame),
        .extend => wayThrough(slots[0].object() orelse return null, 1, frame),
        // A tuple is made of it. Before 3.14 the interpreter has taken it off the stack.
        .call_star, .call_list => wayThrough(
            slots[2].object() orelse return null,
            if (py.minor() < 14) 2 else 1,
            frame,
        ),
        .call => wayOfCall(slots, frame),
        else => null,
    };
}

fn wayThrough(it: *py.Object, times: usize, frame: InterpreterFrame) ?Way {
    if (!frames.isAlive(it)) return null;
    const step = stepOf(it, frame) orelse return null;
    return .{ .gone_through = it, .times = times, .passes_items = step == .function };
}

fn wayOfCall(slots: []const frames.Slot, frame: InterpreterFrame) ?Way {
    if (slots.len < 3) return null;
    const callable = slots[0].object() orelse slots[1].object() orelse return null;
    const first = slots[2].object() orelse return null;
    if (!frames.isAlive(callable) or !frames.isAlive(first)) return null;
    if (callable == known.next) return wayThrough(first, 0, frame);
    if (isConsumer(callable)) {
        const times_of_others: usize = if (isMinOrMax(callable)) timesOfMin() else 1;
        const times = if (callable == known.join) 2 else times_of_others;
        if (wayThrough(first, times, frame)) |way| return way;
    }
    const function = frame.function() orelse return null;
    if (callable == known.sort) return if (first == function) .{ .passes_items = true } else null;
    const second = (if (slots.len > 3) slots[3].object() else null) orelse return null;
    if (callable == known.reduce) {
        // What it goes through may call the function by itself.
        if (first != function or !isPlain(second, function)) return null;
        const times: usize = if (py.minor() < 14) 2 else 1;
        return .{ .gone_through = second, .times = times, .passes_items = true };
    }
    const is_by_key = callable == known.sorted or isMinOrMax(callable);
    if (!is_by_key or second != function or !isPlain(first, function)) return null;
    // sorted() has gone through it before.
    const through = if (callable == known.sorted) null else first;
    return .{ .gone_through = through, .times = timesOfMin(), .passes_items = true };
}

const Step = enum { generator, function };

/// Whether the frame is what the iterator runs for its next item: itself, if it is a generator, or
/// a function that it calls.
fn stepOf(it: *py.Object, frame: InterpreterFrame) ?Step {
    if (it.type == frames.generator_type) return if (frame.isOf(it)) .generator else null;
    for (0..sourceCount(it)) |i| if (stepOf(source(it, i), frame)) |step| return step;
    const function = frame.function() orelse return null;
    if (functionOf(it) != function or frame.owner() != InterpreterFrame.owned_by_thread)
        return null;
    for (0..sourceCount(it)) |i| if (!isPlain(source(it, i), function)) return null;
    return .function;
}

// mapobject has its iterators and then its function, filterobject its function and then its
// iterator.

fn functionOf(it: *py.Object) ?*py.Object {
    const words: [*]const ?*py.Object = @ptrCast(it);
    return if (it.type == known.map) words[3] else if (it.type == known.filter) words[2] else null;
}

fn sourceCount(it: *py.Object) usize {
    const words: [*]const ?*py.Object = @ptrCast(it);
    if (it.type == known.map) return if (words[2]) |all| @intCast(py.PyTuple_Size(all)) else 0;
    return @intFromBool(it.type == known.filter and words[3] != null);
}

fn source(it: *py.Object, i: usize) *py.Object {
    const words: [*]const ?*py.Object = @ptrCast(it);
    return if (it.type == known.map) py.PyTuple_GetItem(words[2].?, @intCast(i)).? else words[3].?;
}

/// Whether going through it does not call the function without a frame in between.
fn isPlain(o: *py.Object, function: *py.Object) bool {
    if (!frames.isAlive(o)) return false;
    if (o.type == frames.generator_type) return true;
    for (known.plain) |t| if (@as(?*py.Object, @ptrCast(o.type)) == t) return true;
    if ((functionOf(o) orelse return false) == function) return false;
    for (0..sourceCount(o)) |i| if (!isPlain(source(o, i), function)) return false;
    return true;
}

fn isMinOrMax(callable: *py.Object) bool {
    return callable == known.min or callable == known.max;
}

/// Before 3.13 they have a tuple of their arguments too, as reduce() has before 3.14.
fn timesOfMin() usize {
    return if (py.minor() < 13) 2 else 1;
}

fn isConsumer(callable: *py.Object) bool {
    for (known.consumers) |o| if (callable == o) return true;
    return callable == known.sorted or callable == known.join or isMinOrMax(callable);
}

const Known = struct {
    map: ?*py.Type = null,
    filter: ?*py.Type = null,
    sorted: ?*py.Object = null,
    min: ?*py.Object = null,
    max: ?*py.Object = null,
    join: ?*py.Object = null,
    sort: ?*py.Object = null,
    reduce: ?*py.Object = null,
    next: ?*py.Object = null,
    consumers: [8]?*py.Object = @splat(null),
    plain: [8]?*py.Object = @splat(null),
};

var known: Known = .{};

/// False with an exception.
pub fn loadTypes() bool {
    known.map = @ptrCast(py.importFrom("builtins", "map") orelse return false);
    known.filter = @ptrCast(py.importFrom("builtins", "filter") orelse return false);
    known.sorted = py.importFrom("builtins", "sorted") orelse return false;
    known.min = py.importFrom("builtins", "min") orelse return false;
    known.max = py.importFrom("builtins", "max") orelse return false;
    known.next = py.importFrom("builtins", "next") orelse return false;
    known.reduce = py.importFrom("_functools", "reduce") orelse return false;
    known.join = ofType("str", "join") orelse return false;
    known.sort = ofType("list", "sort") orelse return false;
    const names =
        [_][*:0]const u8{ "list", "tuple", "set", "frozenset", "dict", "sum", "any", "all" };
    for (&known.consumers, names) |*o, name|
        o.* = py.importFrom("builtins", name) orelse return false;
    for ([_][*:0]const u8{ "list", "tuple", "set", "dict" }, 0..) |name, i| {
        const t = py.importFrom("builtins", name) orelse return false;
        known.plain[i * 2] = t;
        known.plain[i * 2 + 1] = iteratorOf(t) orelse return false;
    }
    return true;
}

fn ofType(type_name: [*:0]const u8, name: [*:0]const u8) ?*py.Object {
    const t = py.importFrom("builtins", type_name) orelse return null;
    defer py.decref(t);
    return py.PyObject_GetAttrString(t, name);
}

/// The type that goes through an object of this type.
fn iteratorOf(t: *py.Object) ?*py.Object {
    const empty = py.call(t, &.{}) orelse return null;
    defer py.decref(empty);
    const iter = py.importFrom("builtins", "iter") orelse return null;
    defer py.decref(iter);
    const it = py.call(iter, &.{empty}) orelse return null;
    defer py.decref(it);
    return py.incref(@ptrCast(it.type));
}
