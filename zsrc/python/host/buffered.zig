//! The interpreter's buffered files, which know their thread.
//!
//! A BufferedReader has a lock, and remembers which thread holds it: to find that the same one
//! wants it again means a call from within a call, an error. What it reads from may be a Python
//! object with a method that gives way. So a goroutine in the middle of such a method keeps its
//! thread, as in the middle of foreign code (foreign.zig): then another one that wants the lock is
//! on another thread, and waits for it.
//!
//! To be in the middle is noted: the methods are replaced where they are (replace.zig) by ones that
//! note it and call them. `for line in file` calls a function of the type's instead.
//!
//! Most files that wait are sockets', and a thread for each would be too many. Where the lock's
//! owner was found in the object, a goroutine that waits for a socket in such a method puts itself
//! in the place of its thread for that time: then any thread finds the lock another's, and waits
//! for it. When the goroutine goes on, its thread of then is the owner.
const std = @import("std");
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const replace = @import("replace.zig");

const lane = &host.the_lane;

/// A call of such a method, on its goroutine's stack.
pub const Call = struct {
    file: *py.Object,
    outer: ?*Call,
    /// The goroutine is the owner in the place of its thread.
    owned: bool = false,

    fn owner(c: *const Call) *usize {
        return &@as([*]usize, @ptrCast(@alignCast(c.file)))[owner_at.?];
    }
};

/// Which word of a buffered file has the number of the thread that holds its lock, if that is
/// known.
var owner_at: ?usize = null;

/// find_buffered_owner(file, /): of one that the caller is in the middle of reading. Whether it was
/// found; null with an exception set.
pub fn findOwner(file: *py.Object) ?bool {
    const class = replace.classOf("_io", "BufferedReader") orelse return null;
    defer py.decref(class);
    if (@as(*py.Object, @ptrCast(file.type)) != class) {
        _ = py.raise(py.exc.typeError(), "find_buffered_owner() needs a BufferedReader", .{});
        return null;
    }
    const size = py.PyObject_GetAttrString(class, "__basicsize__") orelse return null;
    defer py.decref(size);
    const bytes: usize = @intCast(py.PyLong_AsLongLong(size));
    const words: [*]const usize = @ptrCast(@alignCast(file));
    const me = py.PyThread_get_thread_ident();
    var found: ?usize = null;
    for (words[2 .. bytes / @sizeOf(usize)], 2..) |word, i| {
        if (word != me) continue;
        if (found != null) return false;
        found = i;
    }
    if (found == null) return false; // no goroutine is in the middle of it
    owner_at = found;
    return true;
}

/// Before a wait of the calling goroutine, which may go on on another thread. What `enterThread`
/// is given after it.
pub fn leaveThread(p: *goroutine.PyG) ?*Call {
    if (p.buffered == null or owner_at == null) return null;
    const calls = p.buffered;
    const me = py.PyThread_get_thread_ident();
    var it = calls;
    while (it) |c| : (it = c.outer) {
        c.owned = c.owner().* == me;
        // No thread's number: those are addresses of their own memory.
        if (c.owned) c.owner().* = @intFromPtr(p);
    }
    p.buffered = null;
    return calls;
}

pub fn enterThread(p: *goroutine.PyG, calls: ?*Call) void {
    const me = py.PyThread_get_thread_ident();
    var it = calls orelse return;
    p.buffered = it;
    while (true) : (it = it.outer orelse return) {
        if (it.owned and it.owner().* == @intFromPtr(p)) it.owner().* = me;
    }
}

/// Methods that take the lock, by the class that has them. BufferedRWPair calls its two files'.
const methods = [_]struct { [:0]const u8, []const [:0]const u8 }{
    .{ "BufferedReader", &reads ++ both },
    .{ "BufferedWriter", &writes ++ both },
    .{ "BufferedRandom", &reads ++ writes ++ both },
};
const reads = [_][:0]const u8{ "read", "read1", "readinto", "readinto1", "peek", "readline" };
const writes = [_][:0]const u8{"write"};
const both = [_][:0]const u8{ "flush", "seek", "tell", "truncate", "close", "detach" };

const all = blk: {
    @setEvalBranchQuota(100_000);
    var list: []const type = &.{};
    for (methods) |class| {
        for (class[1]) |name| list = list ++ .{Noted(class[0] ++ "." ++ name)};
    }
    const done = list;
    break :blk done;
};

inline fn always() bool {
    return lane.live;
}

fn Noted(comptime path: [:0]const u8) type {
    return struct {
        const Original = replace.Replacement("_io", path, always, call);

        fn call(c: replace.Call) ?*py.Object {
            const g = lane.onThread() orelse return Original.callOriginal(c);
            const p = goroutine.of(g);
            var inner: Call = .{ .file = c.self.?, .outer = p.buffered };
            p.buffered = &inner;
            defer p.buffered = inner.outer;
            return Original.callOriginal(c);
        }
    };
}

/// Before a run. False with an exception set.
pub fn setUp() bool {
    inline for (all) |each| {
        // What a class does not have of its own it has of one that is here too.
        each.Original.install() catch |e| switch (e) {
            error.Missing => {},
            error.Raised => return false,
        };
    }
    return replaceNext();
}

// ---- for line in file ----

var plain_next: @FieldType(py.Slots, "tp_iternext") = null;

fn notedNext(o: *py.Object) callconv(.c) ?*py.Object {
    const g = if (lane.live) lane.onThread() else null;
    const p = goroutine.of(g orelse return plain_next.?(o));
    var inner: Call = .{ .file = o, .outer = p.buffered };
    p.buffered = &inner;
    defer p.buffered = inner.outer;
    return plain_next.?(o);
}

/// The classes' slots, found by what is in them. Classes that inherited it before keep what they
/// have.
fn replaceNext() bool {
    for ([_][:0]const u8{ "BufferedReader", "BufferedRandom" }) |name| {
        const class = replace.classOf("_io", name) orelse return false;
        defer py.decref(class);
        const present = py.getSlot(@ptrCast(class), "tp_iternext");
        if (present == notedNext) continue;
        plain_next = present;
        py.replaceSlot(@ptrCast(class), "tp_iternext", present, notedNext);
    }
    return true;
}
