//! Thread states that are made while the interpreter ends, on 3.14.
//!
//! C code that calls back into Python from a thread of its own makes a thread state for it, in
//! PyGILState_Ensure(). While the interpreter ends, the threads that want its lock exit (up to
//! 3.13) or stand still. 3.14 knows them by a mark that it puts on the thread states there are. A
//! new one has none: it gets the lock, and its thread waits for that or has it when the
//! interpreter's memory goes (SIGSEGV). 3.15 asks in PyGILState_Ensure() itself.
//!
//! So there is a gate at the memory for one, which is asked for by its size and without a lock. It
//! goes up when the program ends, before the interpreter does: what the allocator costs until then
//! stays as it was. From the memory to the list that the marks are put by is a moment in which a
//! thread can be interrupted. All threads that are past the gate have time to get there (`settle`).
//! Then threads pass it only while the thread that ends the interpreter waits without the lock, as
//! an atexit function may for one of them.
//!
//! It goes up in every program, for some microseconds, though most have no native goroutine: C code
//! may start the native lane at any time, on a thread without the interpreter's lock, and only with
//! that can it find out the size.
const std = @import("std");
const os = @import("../../os/os.zig");
const py = @import("../py.zig");
const host = @import("host.zig");

var original: py.Allocator = undefined;
/// The thread that ends the interpreter, which makes those of subinterpreters that are left.
var ender: c_ulong = 0;
var ender_state: usize = 0;
/// Bytes of a thread state. While `probing`, the ender finds it.
var size: std.atomic.Value(usize) = .init(0);
var probing = false;

const Gate = enum(u8) {
    /// For the child of a fork.
    open,
    /// No thread passes.
    settling,
    shut,
    /// The interpreter says no more that it ends, since it has ended.
    over,
};
var gate: std.atomic.Value(Gate) = .init(.open);
/// The numbers of the threads before it; 0: free.
var waiting: [64]std.atomic.Value(i32) = @splat(.init(0));

const look_ns = 50 * std.time.ns_per_us;

/// Before the interpreter ends, with its lock. Shuts the gate; false where there is none.
pub fn watch() bool {
    if (py.minor() != 14) return false;
    const get = py.extra.PyMem_GetAllocator orelse return false;
    const set = py.extra.PyMem_SetAllocator orelse return false;
    const first = ender == 0;
    ender = py.PyThread_get_thread_ident();
    ender_state = @intFromPtr(py.PyThreadState_Get());
    gate.store(.settling, .seq_cst);
    if (!first) return true;
    get(py.PYMEM_DOMAIN_RAW, &original);
    // Another thread may be allocating: all but one of the words that are written stay the same.
    var watched = original;
    watched.calloc = calloc;
    set(py.PYMEM_DOMAIN_RAW, &watched);
    probing = true;
    probe(2); // the interpreter keeps memory for one
    probing = false;
    return true;
}

fn probe(depth: u8) void {
    const state = py.PyThreadState_New(host.interpreter) orelse return;
    if (depth > 1) probe(depth - 1);
    py.PyThreadState_Clear(state);
    py.PyThreadState_Delete(state);
}

/// All threads that had passed have got there.
pub fn settled() void {
    gate.store(.shut, .seq_cst);
}

/// The interpreter has let go all that Python code can reach.
pub fn end() void {
    if (ender != 0) gate.store(.over, .seq_cst);
}

/// Whether the thread stands before the gate.
pub fn waits(thread: i32) bool {
    for (&waiting) |*each| if (each.load(.monotonic) == thread) return true;
    return false;
}

/// The child of a fork, which may end on another thread.
pub fn afterFork() void {
    gate.store(.open, .monotonic);
    for (&waiting) |*each| each.store(0, .monotonic);
}

fn calloc(ctx: ?*anyopaque, count: usize, bytes: usize) callconv(.c) ?*anyopaque {
    if (py.PyThread_get_thread_ident() == ender) {
        if (probing) size.store(bytes, .monotonic);
    } else if (count == 1 and bytes == size.load(.monotonic) and !passes()) wait();
    return original.calloc(ctx, count, bytes);
}

fn passes() bool {
    // With the interpreter's lock, as for a thread that Python code starts: it is put on the list
    // before the ender can mark what is there.
    const current = py.extra.PyThreadState_GetUnchecked orelse return true;
    if (current() != null) return true;
    return switch (gate.load(.seq_cst)) {
        .open => true,
        .settling, .over => false,
        .shut => !host.isFinalizing() and !host.hasInterpreter(ender_state),
    };
}

noinline fn wait() void {
    const thread = os.threadId();
    const place = for (&waiting) |*each| {
        if (each.cmpxchgStrong(0, thread, .monotonic, .monotonic) == null) break each;
    } else null;
    while (!passes()) os.sleepNs(look_ns);
    if (place) |p| p.store(0, .monotonic);
}
