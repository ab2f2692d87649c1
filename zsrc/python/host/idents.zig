//! Numbers that stand for goroutines where CPython has those of threads: what get_ident() returns,
//! what locks keep of their owners, what PyThreadState_SetAsyncExc and sys._current_frames() go by.
//!
//! A number belongs to a thread state, and so to the goroutine that has it from start to end; as
//! with threads it is used again for others afterwards. It must never be a thread's. Where threads
//! have the addresses of their own memory (POSIX), goroutines have addresses in memory reserved for
//! that: no thread's, and full of zeroes, so that C code which takes such a number for a thread
//! reads "no such thread" there rather than crash (faulthandler asks for the thread's name from
//! Python 3.14 on). On Windows threads have multiples of four.
//!
//! All of it needs the interpreter's lock, except `has`.
const std = @import("std");
const builtin = @import("builtin");
const os = @import("../../os/os.zig");

pub const Ident = c_ulong;

const windows = builtin.os.tag == .windows;
const spacing = if (windows) 4 else @sizeOf(usize);
/// So many goroutines can have started and not ended.
const most = 1 << 23;
/// A C library's record of a thread is shorter.
const tail_bytes = 16 * 1024;

/// The number of no goroutine.
pub const none: Ident = 0;

/// Where they begin; none is there before the first is taken.
var base: Ident = if (windows) 1 else 0;
var end: Ident = if (windows) 1 + most * spacing else 0;

var taken: usize = 0;
var free: std.ArrayList(Ident) = .empty;
const gpa = std.heap.c_allocator;

/// Whether it is a goroutine's, or was.
pub inline fn has(ident: Ident) bool {
    if (windows) return ident % spacing == 1 and ident < end;
    return ident -% base < end -% base;
}

pub fn take() error{OutOfMemory}!Ident {
    if (free.pop()) |ident| return ident;
    if (taken == most) return error.OutOfMemory;
    try free.ensureTotalCapacity(gpa, taken + 1);
    if (taken == 0 and !windows) {
        const pages = try os.reserve(most * spacing + tail_bytes);
        base = @intFromPtr(pages);
        end = base + most * spacing;
    }
    taken += 1;
    return base + @as(Ident, @intCast((taken - 1) * spacing));
}

/// What a thread state has that no goroutine has for now. There is one once a number was taken.
pub inline fn idle() Ident {
    return end;
}

/// Lets another goroutine have it.
pub fn give(ident: Ident) void {
    std.debug.assert(has(ident));
    free.appendAssumeCapacity(ident);
}

test "numbers are unique while they are taken, and used again" {
    var all: [100]Ident = undefined;
    for (&all, 0..) |*ident, i| {
        ident.* = try take();
        try std.testing.expect(has(ident.*));
        try std.testing.expect(std.mem.indexOfScalar(Ident, all[0..i], ident.*) == null);
    }
    give(all[7]);
    try std.testing.expectEqual(all[7], try take());
    for (all) |ident| give(ident);
    try std.testing.expect(!has(0));
    if (!windows) try std.testing.expect(!has(@intFromPtr(&all)));
}
