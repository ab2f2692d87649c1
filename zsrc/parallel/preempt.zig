//! Preemption of native goroutines by signals, where it is built: its installation, and the
//! threads' part in it. What a signal does is in interrupt.zig.
const std = @import("std");
const builtin = @import("builtin");
const lane = @import("lane.zig");

const M = lane.M;

const impl = switch (builtin.os.tag) {
    .linux => @import("preempt_linux.zig"),
    else => @import("preempt_none.zig"),
};

const required = [_][]const u8{
    "name",   "install",      "remove",    "enterThread", "leaveThread",
    "signal", "signalNumber", "bringHere", "letMove",     "rest",
};

comptime {
    for (required) |decl| {
        if (!@hasDecl(impl, decl)) @compileError("preemption lacks " ++ decl);
    }
}

pub const name = impl.name;

pub fn install() void {
    if (lane.options.preempt_async) impl.install(lane.interrupt.onSignal);
}

pub fn remove() void {
    impl.remove();
}

/// 0: none.
pub fn signalNumber() u8 {
    return impl.signalNumber();
}

pub fn enterThread(m: *M) void {
    impl.enterThread(m);
}

/// Brings `m` to the CPU of the calling thread, which is about to sleep: `m` goes on in its place.
pub fn bringHere(m: *M) void {
    impl.bringHere(m);
}

/// The calling thread goes on, after `bringHere` perhaps.
pub inline fn letMove(m: *M) void {
    if (m.brought) impl.letMove(m);
}

/// The calling thread is about to wait for work, and to be woken for it like any other.
pub inline fn rest(m: *M) void {
    if (m.patient) impl.rest(m);
}

pub fn leaveThread(m: *M) void {
    impl.leaveThread(m);
}

/// False if none could be sent.
pub fn signal(m: *M) bool {
    return impl.signal(m);
}
