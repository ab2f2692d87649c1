//! An exception that a goroutine had to raise, and that other code has eaten: it is still owed.
//!
//! A Cancelled comes where the goroutine parks. That may be in a finalizer, a callback of a weak
//! reference, or other Python code that was called by C code which can only report its exceptions
//! (sys.unraisablehook). Then the goroutine would go on as if it had not been cancelled. So the
//! goroutine remembers what it was made to raise, and if the interpreter reports that very
//! exception as one that it ignores, the goroutine raises it again where it parks next.
//!
//! The interpreter tells audit hooks what it is about to report, whichever code has set
//! sys.unraisablehook. The exception is remembered by its address and type, not kept: it would keep
//! all its frames. By chance another one of that type may come to lie there, and be ignored: that
//! one is owed then.
//!
//! With an audit hook in the process the interpreter makes arguments for every event: a call of
//! id() takes some 450 instructions more, and open() 900 (counted on 3.11 and 3.13). A hook cannot
//! be taken away again. So there is none before something is raised that could be eaten; contexts
//! that end and time-outs are not, as what waits under them learns it anew each time.
const std = @import("std");
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");

const PyG = goroutine.PyG;
const lane = &host.the_lane;

pub const Raised = struct { exception: ?*const py.Object = null, type: ?*const py.Type = null };
/// Not owned: compared only.
pub const Place = struct { frame: ?*const py.Frame = null, lasti: c_int = 0 };

/// More frames than that are not looked through.
const most_frames = 10_000;

var listening = false;

/// Other hooks are told of this one, and may refuse it.
noinline fn listen() void {
    listening = true;
    if (py.extra.PySys_AddAuditHook(onEvent, null) != 0) py.PyErr_WriteUnraisable(null);
}

/// Remembers what `p` raises now.
pub inline fn note(p: *PyG, exception: *const py.Object) void {
    if (!listening) listen();
    p.raised = .{ .exception = exception, .type = exception.type };
}

fn onEvent(event: [*:0]const u8, args: *py.Object, _: ?*anyopaque) callconv(.c) c_int {
    if (!std.mem.eql(u8, std.mem.span(event), "sys.unraisablehook")) return 0;
    if (py.PyTuple_Size(args) != 2) return 0;
    // A struct sequence: the exception's type, the exception, and more.
    const exception = py.PyTuple_GetItem(py.PyTuple_GetItem(args, 1).?, 1) orelse {
        py.PyErr_Clear();
        return 0;
    };
    const p = takeAgain(exception) orelse return 0;
    const frame = py.PyThreadState_GetFrame(py.PyThreadState_Get());
    p.eaten_at = .{ .frame = frame, .lasti = if (frame) |f| py.extra.PyFrame_GetLasti(f) else 0 };
    py.xdecref(@ptrCast(frame));
    return 0;
}

/// owe(exception, /): of code of golibx's that eats what plugins raise.
pub fn owe(exception: *py.Object) bool {
    const p = takeAgain(exception) orelse return false;
    p.eaten_at = .{};
    return true;
}

/// owe_nothing(): of the calling goroutine.
pub fn oweNothing() ?*py.Object {
    if (lane.onThread()) |g| goroutine.of(g).owes_nothing = true;
    return py.returnNone();
}

/// The caller owes the exception again, if that is what it was made to raise; null if not.
fn takeAgain(exception: *py.Object) ?*PyG {
    const p = goroutine.of(lane.onThread() orelse lane.stray() orelse return null);
    if (p.owes_nothing) return null;
    if (exception != p.raised.exception or exception.type != p.raised.type) return null;
    p.raised = .{};
    const old = p.owes.eaten;
    p.owes.eaten = py.incref(exception);
    py.xdecref(old);
    return p;
}

/// Where a goroutine parks, or is watched because it does not: what was eaten is pending again,
/// unless it is still being reported. That may wait too, and would eat it once more.
pub noinline fn settle(p: *PyG) void {
    const exception = p.owes.eaten orelse return;
    if (isReporting(p)) return;
    p.owes.eaten = null;
    if (p.owes.pending == null) p.owes.pending = exception else py.decref(exception);
}

/// The frame in which the report was made is at the same instruction.
fn isReporting(p: *PyG) bool {
    var at = py.PyThreadState_GetFrame(p.state orelse py.PyThreadState_Get());
    for (0..most_frames) |_| {
        const f = at orelse return false;
        defer py.decref(&f.ob);
        if (f == p.eaten_at.frame) return py.extra.PyFrame_GetLasti(f) == p.eaten_at.lasti;
        at = py.extra.PyFrame_GetBack(f);
    }
    py.xdecref(@ptrCast(at));
    return false;
}
