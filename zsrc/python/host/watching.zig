//! What is called where goroutines of the program begin and end: Runtime.watch_goroutines().
//!
//! Events tell plugins of that too, but later and elsewhere. Here it is the goroutine itself that
//! calls: before its function, when its context variables are there, and after it, before other
//! code learns that it has ended. What is called then can set a context variable that the function
//! sees.
//!
//! There is one function, golibx.runtime's, which knows all watchers, and keeps what they raise
//! from the goroutine. What it still raises is reported as an exception that is ignored: so what
//! the goroutine was made to raise, where that function waited, is owed to it (owed.zig).
const py = @import("../py.zig");
const goroutine = @import("goroutine.zig");

const PyG = goroutine.PyG;

/// Owned. Null: there is no watcher. Everything here has the interpreter's lock.
var watcher: ?*py.Object = null;

/// watch_goroutines(function, /)
pub fn watch(function: *py.Object) void {
    const old = watcher;
    watcher = if (function == py.none()) null else py.incref(function);
    py.xdecref(old);
}

/// The function to call when the goroutine has ended, owned; null: none.
pub inline fn begin(p: *PyG) ?*py.Object {
    const function = watcher orelse return null;
    return if (p.g.system or p == goroutine.main) null else callBegin(p, function);
}

noinline fn callBegin(p: *PyG, function: *py.Object) ?*py.Object {
    // It may have itself replaced.
    _ = py.incref(function);
    defer py.decref(function);
    const on_end = py.call(function, &.{&p.handle.ob}) orelse {
        py.PyErr_WriteUnraisable(function);
        return null;
    };
    if (on_end != py.none()) return on_end;
    py.decref(on_end);
    return null;
}

/// Takes the reference. The function is not given the handle: if it kept that, it would count as
/// code that may still collect the exception, which then would not be reported.
pub noinline fn end(h: *goroutine.Handle, on_end: *py.Object) void {
    defer py.decref(on_end);
    const result = callEnd(h, on_end) orelse return py.PyErr_WriteUnraisable(on_end);
    py.decref(result);
}

fn callEnd(h: *goroutine.Handle, on_end: *py.Object) ?*py.Object {
    const outcome = py.PyUnicode_InternFromString(@tagName(h.outcome)) orelse return null;
    defer py.decref(outcome);
    const exception = py.incref(h.exception orelse py.none());
    defer py.decref(exception);
    return py.call(on_end, &.{ outcome, exception });
}
