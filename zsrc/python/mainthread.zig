//! Frees the main thread of a run that has ended from a goroutine that blocks it.
//!
//! run() returns on the thread that called it, and a goroutine that was given up may be in a C call
//! there. A signal ends the call, if it asks for signals when a system call was interrupted, as
//! CPython's own do; the handler raises Cancelled in it then. But the interpreter also runs handlers
//! between two lines, where nothing may be raised: the call may just have returned. So the first
//! signal raises nothing. It notes where its handler was called from, and has the interpreter make
//! a pending call, which it does only where it would run handlers between two lines. If that has
//! not happened when the next signal is handled, at the same stack depth and instruction, the
//! handler was called by the same C call as before, which has gone on meanwhile.
const os = @import("../os/os.zig");
const py = @import("py.zig");
const host = @import("host.zig");
const errors = @import("errors.zig");
const goroutine = @import("goroutine.zig");

const lane = &host.the_lane;

const Place = struct { frame: *py.Object, lasti: c_int, stack: usize };
/// Where the last signal's handler was called, if that may have been in a C call.
var place: ?Place = null;
var pending_call = false;
var freeing = false;

/// free_main_thread(signal): whether no goroutine but the main one is on the thread that called
/// run(). Sends it the signal otherwise.
pub fn free(_: ?*py.Object, signal: ?*py.Object) callconv(.c) ?*py.Object {
    const number = py.PyLong_AsLongLong(signal.?);
    if (number == -1 and py.PyErr_Occurred() != null) return null;
    const m = lane.m0;
    freeing = lane.live and m.curg != null and m.curg != &goroutine.main.?.g;
    if (freeing and number > 0) os.signalThread(m.thread.?, @intCast(number));
    return py.boolean(!freeing);
}

/// The handler of that signal: (signal, frame).
pub fn onSignal(_: ?*py.Object, args: py.Args, n: py.Ssize) callconv(.c) ?*py.Object {
    const g = lane.onThread() orelse return py.returnNone();
    if (n != 2 or !freeing or g.status != .syscall) return py.returnNone();
    const now: Place = .{
        .frame = args[1],
        // A goroutine's function may be C itself.
        .lasti = if (args[1] == py.none()) 0 else py.extra.PyFrame_GetLasti(@ptrCast(args[1])),
        .stack = @frameAddress(),
    };
    const before = place;
    place = now;
    if (before) |b| if (b.frame == now.frame and b.lasti == now.lasti and b.stack == now.stack) {
        place = null;
        return errors.raise(.Cancelled, "the run has ended", .{});
    };
    if (!pending_call) pending_call = py.Py_AddPendingCall(betweenLines, null) == 0;
    if (!pending_call) place = null;
    return py.returnNone();
}

fn betweenLines(_: ?*anyopaque) callconv(.c) c_int {
    pending_call = false;
    place = null;
    return 0;
}
