//! The interpreter's buffered files, which know their thread.
//!
//! A BufferedReader has a lock, and remembers which thread holds it: to find that the same one
//! wants it again means a call from within a call, an error. What it reads from may be a Python
//! object, whose method gives way. So a goroutine in the middle of such a method keeps its thread,
//! as in the middle of foreign code (foreign.zig): then another one that wants the lock is on
//! another thread, and waits for it.
//!
//! To be in the middle is counted: the methods are replaced where they are (replace.zig) by ones
//! that count and call them. `for line in file` calls a function of the type's instead.
const std = @import("std");
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const replace = @import("replace.zig");

const lane = &host.the_lane;

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
        for (class[1]) |name| list = list ++ .{Counted(class[0] ++ "." ++ name)};
    }
    const done = list;
    break :blk done;
};

inline fn always() bool {
    return lane.live;
}

fn Counted(comptime path: [:0]const u8) type {
    return struct {
        const Original = replace.Replacement("_io", path, always, call);

        fn call(c: replace.Call) ?*py.Object {
            const g = lane.onThread() orelse return Original.callOriginal(c);
            const p = goroutine.of(g);
            p.in_buffered += 1;
            defer p.in_buffered -= 1;
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

fn countedNext(o: *py.Object) callconv(.c) ?*py.Object {
    const g = if (lane.live) lane.onThread() else null;
    const p = goroutine.of(g orelse return plain_next.?(o));
    p.in_buffered += 1;
    defer p.in_buffered -= 1;
    return plain_next.?(o);
}

/// The classes' slots, found by what is in them. Classes that inherited it before keep what they
/// have.
fn replaceNext() bool {
    for ([_][:0]const u8{ "BufferedReader", "BufferedRandom" }) |name| {
        const class = replace.classOf("_io", name) orelse return false;
        defer py.decref(class);
        const present = py.getSlot(@ptrCast(class), "tp_iternext");
        if (present == countedNext) continue;
        plain_next = present;
        py.replaceSlot(@ptrCast(class), "tp_iternext", present, countedNext);
    }
    return true;
}
