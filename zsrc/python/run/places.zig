//! Where goroutines were when they lost the processor in a blocking call: the code and the
//! instruction of the innermost Python frame, kept beside the ring until the event is delivered.
//!
//! A goroutine that blocks has let the interpreter's lock go, and its frames stay as they are while
//! others have that. What it calls follows from the code (golibx/places.py); its value stack, of
//! which the interpreter does not store how high it is, is not looked at.
//!
//! All of it is done with the lock. A place is kept by an M on g0, in the midst of taking the P: no
//! code of the program's may run there.
const std = @import("std");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const goroutine = @import("../host/goroutine.zig");

const Place = struct { code: *py.Object, instruction: c_int };

var kept: std.AutoHashMapUnmanaged(u32, Place) = .empty;
var last: u32 = 0;

/// What `take` and `drop` know it by; 0 if it is not known.
pub fn keep(p: *goroutine.PyG) u32 {
    const place = find(p) orelse return 0;
    // There are never more of them than events in the ring.
    last = if (last == std.math.maxInt(u32)) 1 else last + 1;
    kept.put(host.gpa, last, place) catch {
        py.decref(place.code);
        return 0;
    };
    return last;
}

fn find(p: *goroutine.PyG) ?Place {
    const state = p.state orelse return null;
    // In 3.11 it is where objects are made that garbage is collected, and finalizers run.
    const collects = py.PyGC_Disable() != 0;
    defer if (collects) {
        _ = py.PyGC_Enable();
    };
    const frame = py.PyThreadState_GetFrame(state) orelse return null;
    defer py.decref(&frame.ob);
    return .{
        .code = py.PyFrame_GetCode(frame),
        .instruction = py.extra.PyFrame_GetLasti(frame),
    };
}

/// The event was dropped.
pub fn drop(which: u32) void {
    // Not its last reference: the frame has one.
    py.decref((kept.fetchRemove(which) orelse return).value.code);
}

/// As Python has it: (code, instruction), or None.
pub fn take(which: u32) ?*py.Object {
    const place = (kept.fetchRemove(which) orelse return py.returnNone()).value;
    defer py.decref(place.code);
    const instruction = py.PyLong_FromLongLong(place.instruction) orelse return null;
    defer py.decref(instruction);
    return py.PyTuple_Pack(2, place.code, instruction);
}

/// After a run: those of events that were not delivered.
pub fn clear() void {
    var old = kept;
    kept = .empty;
    var it = old.valueIterator();
    while (it.next()) |place| py.decref(place.code);
    old.deinit(host.gpa);
}
