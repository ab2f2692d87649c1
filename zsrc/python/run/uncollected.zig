//! Goroutines that have raised an exception which has not been collected yet, but still could be.
//! Code that holds the handle may still call result(). If that never happens the exception is
//! reported when the handle goes, or at the end of the run, whichever comes first.
const std = @import("std");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const goroutine = @import("../host/goroutine.zig");

const Handle = goroutine.Handle;

/// Borrowed: a handle takes itself off when it goes.
var listed: std.AutoHashMapUnmanaged(*Handle, void) = .empty;

pub fn add(h: *Handle) void {
    listed.put(host.gpa, h, {}) catch return goroutine.report(h);
    h.listed = true;
}

pub fn remove(h: *Handle) void {
    _ = listed.remove(h);
    h.listed = false;
}

/// report_uncollected(): in the order in which the goroutines were started.
pub fn reportAll() ?*py.Object {
    const handles = host.gpa.alloc(*Handle, listed.count()) catch return py.PyErr_NoMemory();
    defer host.gpa.free(handles);
    var it = listed.keyIterator();
    for (handles) |*h| {
        h.* = it.next().?.*;
        _ = py.incref(&h.*.ob);
    }
    std.mem.sort(*Handle, handles, {}, isEarlier);
    for (handles) |h| {
        if (h.listed) remove(h);
        if (!h.collected) goroutine.report(h);
        py.decref(&h.ob);
    }
    return py.returnNone();
}

fn isEarlier(_: void, a: *Handle, b: *Handle) bool {
    return a.id < b.id;
}
