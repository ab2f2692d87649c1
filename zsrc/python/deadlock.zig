//! "All goroutines are asleep": nothing in the program can ever wake one. The main goroutine then
//! raises Deadlock, with every goroutine's stack.
const py = @import("py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");

const lane = &host.the_lane;

/// With the lock, on g0. True if the main goroutine has been woken for it.
pub fn report() bool {
    const main = goroutine.main orelse return false;
    if (main.g.status != .waiting or otherThreads()) return false;
    const exception = make() orelse py.takeException() orelse return false;
    // A thread that has ended since may have woken somebody first.
    if (main.g.status != .waiting or lane.anyRunnable()) {
        py.decref(exception);
    } else {
        lane.record(.deadlock, main.g.id, lane.user_count, 0);
        goroutine.interrupt(main, exception);
    }
    return true;
}

/// Threads of the program's own may still send to a channel.
fn otherThreads() bool {
    const module = py.PyImport_ImportModule("_thread") orelse return clear(true);
    defer py.decref(module);
    const count = py.PyObject_GetAttrString(module, "_count") orelse return clear(true);
    defer py.decref(count);
    const n = py.call(count, &.{}) orelse return clear(true);
    defer py.decref(n);
    // The thread that called run() counts if it is not the main one.
    return py.PyLong_AsLongLong(n) > @intFromBool(!on_main_thread);
}

/// Set by run().
pub var on_main_thread = true;

fn clear(result: bool) bool {
    py.PyErr_Clear();
    return result;
}

fn make() ?*py.Object {
    const module = py.PyImport_ImportModule("golibx.dump") orelse return null;
    defer py.decref(module);
    const function = py.PyObject_GetAttrString(module, "deadlock") orelse return null;
    defer py.decref(function);
    return py.call(function, &.{});
}
