//! Tracing that the program asked of new threads: a goroutine is traced as a thread that begins.
//!
//! threading.settrace() and setprofile() keep the functions in the module's dictionary, which is
//! looked at when a goroutine starts. The main goroutine is no new thread: it is traced as the
//! thread that called run() is.
//!
//! A tracer looks up which thread its event is from: a thread is in threading._active before its
//! first one. So is a goroutine's; otherwise debugpy would take it for a thread that is none of
//! Python's, which it lets run through all breakpoints.
const py = @import("../py.zig");
const identity = @import("identity.zig");

/// Where threading.settrace() and setprofile() keep what new threads call.
const TraceHook = struct {
    name: [*:0]const u8,
    setter: [*:0]const u8,
    key: ?*py.Object = null,
};
var hooks = [_]TraceHook{
    .{ .name = "_trace_hook", .setter = "settrace" },
    .{ .name = "_profile_hook", .setter = "setprofile" },
};
var threading_dict: ?*py.Object = null;

/// None of them is set, unless the module's dictionary has changed since they were looked at: it is
/// watched, or has its version of then.
var none_set = false;
var watched = false;
var version: u64 = 0;

/// PyDictObject of 3.11, as far as its version.
const Dict = extern struct { ob: py.Object, used: py.Ssize, version: u64 };

/// False with an exception set.
pub fn watch() bool {
    if (threading_dict != null) return true;
    const module = py.PyImport_ImportModule("threading") orelse return false;
    defer py.decref(module);
    for (&hooks) |*hook| hook.key = py.PyUnicode_InternFromString(hook.name) orelse return false;
    const dict = py.PyModule_GetDict(module) orelse return false;
    if (py.extra.PyDict_AddWatcher) |addWatcher| {
        const id = addWatcher(changes);
        watched = id >= 0 and py.extra.PyDict_Watch.?(id, dict) == 0;
        py.PyErr_Clear(); // all eight watchers are in use
    }
    threading_dict = py.incref(dict);
    return true;
}

fn changes(_: c_int, _: ?*py.Object, _: ?*py.Object, _: ?*py.Object) callconv(.c) c_int {
    none_set = false;
    return 0;
}

inline fn isUnchanged(dict: *py.Object) bool {
    if (!none_set or watched) return none_set;
    return py.minor() == 11 and @as(*const Dict, @ptrCast(@alignCast(dict))).version == version;
}

/// As threading.Thread does for a new thread: sys.settrace and sys.setprofile with the program's
/// hooks. In any goroutine but the main one.
pub inline fn start() void {
    const dict = threading_dict orelse return;
    if (!isUnchanged(dict)) look(dict);
}

noinline fn look(dict: *py.Object) void {
    // Not later: what is called may set others.
    none_set = true;
    if (py.minor() == 11) version = @as(*const Dict, @ptrCast(@alignCast(dict))).version;
    for (&hooks) |*hook| {
        const function = py.PyDict_GetItemWithError(dict, hook.key.?) orelse continue;
        if (function == py.none()) continue;
        none_set = false;
        setHook(hook, function);
    }
}

noinline fn setHook(hook: *const TraceHook, borrowed: *py.Object) void {
    const function = py.incref(borrowed);
    defer py.decref(function);
    identity.makeThread();
    const set = py.PySys_GetObject(hook.setter) orelse return;
    if (py.call(set, &.{function})) |r| py.decref(r) else py.PyErr_Clear();
}
