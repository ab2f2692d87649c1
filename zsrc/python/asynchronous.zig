//! Functions that make coroutines: to start one as a goroutine is a mistake that would go unseen,
//! since a call of it runs nothing. go() and its like refuse them.
//!
//! The flags of a code object are read where they lie in every version so far. That costs two
//! loads; only where they say so the attribute is asked, in case that another version has them
//! elsewhere.
//!
//! What a callable object calls is told where it must be one certain function: that of a method, a
//! partial or a cache, `__call__` of a class, compilers' functions that have a code object. A
//! function that calls an async one may as well await it.
const py = @import("py.zig");

/// PyCodeObject.co_flags, of 3.11 to 3.15.
const flags_offset = 48;
/// Include/cpython/code.h: CO_COROUTINE, CO_ASYNC_GENERATOR.
const async_flags = 0x80 | generator_flag;
const generator_flag = 0x200;

/// More steps than this from a callable object to its function are taken for a circle.
const most_steps = 32;

var method_type: ?*py.Object = null;
var partial_type: ?*py.Object = null;
var cache_type: ?*py.Object = null;
var static_method_type: ?*py.Object = null;
var type_type: ?*py.Object = null;
/// The type of the `__call__` of classes that have C code for their calls.
var slot_type: ?*py.Object = null;

/// False with an exception set.
pub fn load() bool {
    method_type = py.importFrom("types", "MethodType") orelse return false;
    partial_type = py.importFrom("_functools", "partial") orelse return false;
    cache_type = py.importFrom("_functools", "_lru_cache_wrapper") orelse return false;
    static_method_type = py.importFrom("builtins", "staticmethod") orelse return false;
    slot_type = py.importFrom("types", "WrapperDescriptorType") orelse return false;
    type_type = py.importFrom("builtins", "type") orelse return false;
    return true;
}

pub const Callee = enum {
    /// Calling it makes a coroutine or an asynchronous generator; TypeError is set.
    refused,
    /// One function in Python runs.
    python,
    other,
};

/// What calling `function` does. Of methods, partial functions and the like what they call counts.
pub inline fn look(comptime name: []const u8, function: *py.Object) Callee {
    if (py.isFunction(function)) {
        if (!looksAsync(function)) return .python;
    } else if (py.isBuiltinFunction(function)) return .other;
    return lookSlowly(name, function);
}

inline fn looksAsync(function: *py.Object) bool {
    const code = py.extra.PyFunction_GetCode(function) orelse return false;
    const flags: *const u32 = @ptrFromInt(@intFromPtr(code) + flags_offset);
    return flags.* & async_flags != 0;
}

inline fn typeOf(o: *py.Object) *py.Object {
    return @ptrCast(o.type);
}

noinline fn lookSlowly(comptime name: []const u8, given: *py.Object) Callee {
    var called = calledBy(given);
    defer called.deinit();
    if (called.flags == 0) return if (called.directly) .python else .other;
    const its_name = py.PyObject_GetAttrString(called.function, "__qualname__") orelse
        return .refused;
    defer py.decref(its_name);
    if (called.flags & generator_flag != 0) _ = py.PyErr_Format(
        py.exc.typeError(),
        name ++
            "() needs a function that runs when it is called, and %U() is an async generator: " ++
            "golibx.aio.run(...) awaits in a goroutine a coroutine that has `async for` over it",
        its_name,
    ) else _ = py.PyErr_Format(
        py.exc.typeError(),
        name ++ "() needs a function that runs when it is called, and %U() is async: " ++
            "golibx.aio.run(%U(...)) awaits it in a goroutine",
        its_name,
        its_name,
    );
    return .refused;
}

/// async_callee(function): what it is called if a call of it makes a coroutine or an asynchronous
/// generator, and whether it is a generator; None of others. For Python code that is given
/// functions.
pub fn asyncCallee(given: *py.Object) ?*py.Object {
    var called = calledBy(given);
    defer called.deinit();
    if (called.flags == 0) return py.returnNone();
    const its_name = py.PyObject_GetAttrString(called.function, "__qualname__") orelse return null;
    defer py.decref(its_name);
    const is_generator = py.boolean(called.flags & generator_flag != 0);
    defer py.decref(is_generator);
    return py.PyTuple_Pack(2, its_name, is_generator);
}

const Called = struct {
    function: *py.Object,
    /// Those of async_flags that it has: none, unless it is async.
    flags: u32 = 0,
    /// Only methods and partial functions lie between it and what was given: a call runs this one
    /// function in Python.
    directly: bool = false,

    fn deinit(called: *Called) void {
        py.decref(called.function);
    }
};

/// The function that a call of `given` calls in the end, as far as that can be told. No exception
/// is set.
fn calledBy(given: *py.Object) Called {
    var called: Called = .{ .function = py.incref(given) };
    var directly = true;
    for (0..most_steps) |_| {
        if (py.isFunction(called.function)) {
            called.directly = directly;
            if (looksAsync(called.function)) called.flags = asyncFlags(called.function);
            return called;
        }
        const its_type = typeOf(called.function);
        directly = directly and (its_type == method_type or its_type == partial_type);
        const inner = next(called.function) orelse {
            if (hasCode(its_type)) called.flags = asyncFlags(called.function);
            return called;
        };
        py.decref(called.function);
        called.function = inner;
    }
    return called;
}

/// What a callable that is no function calls; null if only C code can tell.
fn next(callable: *py.Object) ?*py.Object {
    const its_type = typeOf(callable);
    if (its_type == type_type or py.isBuiltinFunction(callable)) return null;
    if (its_type == method_type or its_type == static_method_type)
        return attribute(callable, "__func__");
    if (its_type == partial_type) return attribute(callable, "func");
    if (its_type == cache_type) return attribute(callable, "__wrapped__");
    const call = attribute(its_type, "__call__") orelse return null;
    if (typeOf(call) != slot_type) return call;
    py.decref(call);
    const is_partial = py.PyType_IsSubtype(callable.type, @ptrCast(partial_type.?)) != 0;
    return if (is_partial) attribute(callable, "func") else null;
}

/// Whether it is a type of compiled functions, which say how to call them as other functions do.
fn hasCode(its_type: *py.Object) bool {
    if (its_type == type_type) return false;
    py.decref(attribute(its_type, "__code__") orelse return false);
    return true;
}

fn asyncFlags(function: *py.Object) u32 {
    const code = attribute(function, "__code__") orelse return 0;
    defer py.decref(code);
    const flags = attribute(code, "co_flags") orelse return 0;
    defer py.decref(flags);
    const value = py.PyLong_AsLongLong(flags);
    if (value == -1) py.PyErr_Clear();
    return if (value == -1) 0 else @intCast(value & async_flags);
}

fn attribute(o: *py.Object, name: [*:0]const u8) ?*py.Object {
    const value = py.PyObject_GetAttrString(o, name);
    if (value == null) py.PyErr_Clear();
    return value;
}
