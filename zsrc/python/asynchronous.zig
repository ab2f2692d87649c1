//! Functions that make coroutines: to start one as a goroutine is a mistake that would go unseen,
//! since a call of it runs nothing. go() and its like refuse them.
//!
//! The flags of a code object are read where they lie in every version so far. That costs two loads;
//! only where they say so the attribute is asked, in case that another version has them elsewhere.
const py = @import("py.zig");

/// PyCodeObject.co_flags, of 3.11 to 3.15.
const flags_offset = 48;
/// Include/cpython/code.h: CO_COROUTINE, CO_ASYNC_GENERATOR.
const async_flags = 0x80 | 0x200;

var method_type: ?*py.Object = null;
var partial_type: ?*py.Object = null;

/// False with an exception set.
pub fn load() bool {
    method_type = py.importFrom("types", "MethodType") orelse return false;
    partial_type = py.importFrom("_functools", "partial") orelse return false;
    return true;
}

pub const Callee = enum {
    /// Calling it makes a coroutine or an asynchronous generator; TypeError is set.
    refused,
    /// One function in Python runs.
    python,
    other,
};

/// What calling `function` does. Of methods and partial functions what they call counts.
pub inline fn look(comptime name: []const u8, function: *py.Object) Callee {
    if (py.isFunction(function)) {
        if (!looksAsync(function)) return .python;
    } else if (!wraps(function)) return .other;
    return lookSlowly(name, function);
}

inline fn looksAsync(function: *py.Object) bool {
    const code = py.extra.PyFunction_GetCode(function) orelse return false;
    const flags: *const u32 = @ptrFromInt(@intFromPtr(code) + flags_offset);
    return flags.* & async_flags != 0;
}

inline fn wraps(function: *py.Object) bool {
    const its_type: *py.Object = @ptrCast(function.type);
    return its_type == method_type or its_type == partial_type;
}

noinline fn lookSlowly(comptime name: []const u8, given: *py.Object) Callee {
    const function = unwrapped(given) orelse return clear();
    defer py.decref(function);
    if (!py.isFunction(function)) return .other;
    if (!isAsync(function)) return .python;
    const its_name = py.PyObject_GetAttrString(function, "__qualname__") orelse return .refused;
    defer py.decref(its_name);
    _ = py.PyErr_Format(
        py.exc.typeError(),
        name ++ "() needs a function that runs when it is called, and %U() is async: " ++
            "golibx.aio.run(%U(...)) awaits it in a goroutine",
        its_name,
        its_name,
    );
    return .refused;
}

/// async_name(function): what it is called if a call of it makes a coroutine or an asynchronous
/// generator, None otherwise. For Python code that is given functions.
pub fn nameOfAsync(_: ?*py.Object, given: ?*py.Object) callconv(.c) ?*py.Object {
    const function = unwrapped(given.?) orelse return null;
    defer py.decref(function);
    if (!py.isFunction(function) or !isAsync(function)) return py.returnNone();
    return py.PyObject_GetAttrString(function, "__qualname__");
}

/// The function that a method or partial function calls. Null with an exception set.
fn unwrapped(given: *py.Object) ?*py.Object {
    var function = py.incref(given);
    while (wraps(function)) {
        const is_method = @as(*py.Object, @ptrCast(function.type)) == method_type;
        const attribute = if (is_method) "__func__" else "func";
        const inner = py.PyObject_GetAttrString(function, attribute);
        py.decref(function);
        function = inner orelse return null;
    }
    return function;
}

fn isAsync(function: *py.Object) bool {
    if (!looksAsync(function)) return false;
    const code = py.extra.PyFunction_GetCode(function) orelse return false;
    const flags = py.PyObject_GetAttrString(code, "co_flags") orelse {
        py.PyErr_Clear();
        return false;
    };
    defer py.decref(flags);
    return py.PyLong_AsLongLong(flags) & async_flags != 0;
}

fn clear() Callee {
    py.PyErr_Clear();
    return .other;
}
