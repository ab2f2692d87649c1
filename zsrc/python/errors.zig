//! golibx's exceptions, which are defined in golibx/errors.py and sync.py and looked up when first
//! raised.
const std = @import("std");
const py = @import("py.zig");
const host = @import("host/host.zig");
const m_mod = @import("../serial/m.zig");

pub const Name =
    enum { GolibxError, ChannelClosed, Cancelled, DeadlineExceeded, Deadlock, BrokenBarrierError };

var cache: [@typeInfo(Name).@"enum".field_names.len]?*py.Object = @splat(null);

/// The class, borrowed; null with an exception set.
pub fn get(name: Name) ?*py.Object {
    if (cache[@backingInt(name)]) |class| return class;
    const module = if (name == .BrokenBarrierError) "golibx.sync" else "golibx.errors";
    const class = py.importFrom(module, @tagName(name)) orelse return null;
    cache[@backingInt(name)] = class;
    return class;
}

/// Fills the cache, so that raising later imports nothing; but for what few programs ever need.
pub fn load() bool {
    for (std.enums.values(Name)) |name| {
        if (name == .BrokenBarrierError) continue;
        _ = get(name) orelse return false;
    }
    return true;
}

pub fn raise(name: Name, comptime format: []const u8, args: anytype) ?*py.Object {
    return py.raise(get(name) orelse return null, format, args);
}

pub fn instance(name: Name) ?*py.Object {
    return py.PyObject_CallObject(get(name) orelse return null, null);
}

/// An exception object that is not raised; never null, at worst another exception than asked for.
pub fn make(class: *py.Object, text: [*:0]const u8) *py.Object {
    py.PyErr_SetString(class, text);
    return py.takeException() orelse py.incref(py.none());
}

/// Has `exception` tell of `before`, which was raised first, at the end of what it tells already;
/// unless one of them tells of the other.
pub fn follow(exception: *py.Object, before: *py.Object) void {
    if (endOfChain(before, exception) == null) return;
    const last = endOfChain(exception, before) orelse return;
    py.PyException_SetContext(last, py.incref(before));
}

/// The exception that is set, which tells of `before`, if that is one: as `follow`. Clears it, and
/// takes the reference to `before`.
pub fn takeAfter(before: ?*py.Object) *py.Object {
    const exception = py.takeException().?;
    const earlier = before orelse return exception;
    follow(exception, earlier);
    py.decref(earlier);
    return exception;
}

/// The last of the contexts of `exception`; null if `other` is one of them, or if there are so many
/// that they may go round in a circle.
fn endOfChain(exception: *py.Object, other: *py.Object) ?*py.Object {
    var last = exception;
    for (0..most_contexts) |_| {
        if (last == other) return null;
        const next = py.PyException_GetContext(last) orelse return last;
        py.decref(next); // `last` keeps it
        last = next;
    }
    return null;
}

const most_contexts = 1000;

pub fn runEnds() void {
    @branchHint(.cold);
    _ = py.raise(
        py.exc.runtimeError(),
        "the golibx run is ending: a thread cannot start goroutines in it",
        .{},
    );
}

pub fn notInGoroutine() void {
    @branchHint(.cold);
    const lane = &host.the_lane;
    if (forked) {
        _ = py.raise(py.exc.runtimeError(), "this process was forked inside a golibx runtime, " ++
            "which does not survive a fork: call golibx.run() anew, or exec", .{});
    } else if (lane.stray()) |g| {
        _ = py.raise(
            py.exc.runtimeError(),
            "the golibx run that goroutine {d} belongs to has ended",
            .{g.id},
        );
    } else if (!lane.live) {
        _ = py.raise(py.exc.runtimeError(), "no golibx runtime is running: " ++
            "start the program with `golibx run`, or call this inside golibx.run(main)", .{});
    } else if (m_mod.current() != null) {
        _ = py.raise(py.exc.runtimeError(), "this thread runs no goroutine just now: " ++
            "what is called between two, such as a signal handler, cannot wait, " ++
            "but can have go() start one that does", .{});
    } else {
        _ = py.raise(py.exc.runtimeError(), "this thread runs no goroutine, which this " ++
            "operation is about: have one that is started with go() do it", .{});
    }
}

/// Set in the child of a fork.
pub var forked = false;
