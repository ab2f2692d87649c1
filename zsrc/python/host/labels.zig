//! Goroutine.labels: what golibx/labels.py has put into a context variable, read from outside.
//!
//! A goroutine that runs or waits has its context variables in its thread state; one that has not
//! begun, in the context that it will begin with. A context can be asked for a variable at any
//! time, also while a goroutine is in it.
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");

/// The ContextVar and what stands for no block at all; owned.
var variable: ?*py.Object = null;
var no_block: ?*py.Object = null;

/// learn_labels(variable, no_block, /)
pub fn learn(its_variable: *py.Object, its_no_block: *py.Object) void {
    const places = [_]*?*py.Object{ &variable, &no_block };
    for (places, [_]*py.Object{ its_variable, its_no_block }) |place, new| {
        const old = place.*;
        place.* = py.incref(new);
        py.xdecref(old);
    }
}

/// Those of a goroutine, or of one that has ended; null with an exception set.
pub fn of(goroutine_: ?*goroutine.PyG) ?*py.Object {
    const fallback = no_block orelse return py.PyDict_New();
    const p = goroutine_ orelse return shown(fallback);
    const context = py.incref(contextOf(p) orelse return shown(fallback));
    defer py.decref(context);
    const get = py.PyObject_GetAttrString(context, "get") orelse return null;
    defer py.decref(get);
    const block = py.call(get, &.{ variable.?, fallback }) orelse return null;
    defer py.decref(block);
    return shown(block);
}

fn contextOf(p: *const goroutine.PyG) ?*py.Object {
    const state = p.state orelse return p.context;
    return host.variablesOf(state) orelse p.context;
}

fn shown(block: *py.Object) ?*py.Object {
    return py.PyObject_GetAttrString(block, "labels");
}
