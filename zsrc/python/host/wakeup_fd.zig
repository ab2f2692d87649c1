//! signal.set_wakeup_fd(), as golibx has it from the first run on: see golibx.patch.wakeup.
//!
//! Libraries keep the function that they found when they were imported, uvloop in C code. It would
//! take the place of golibx's pipe, which wakes the scheduler when a signal comes. So the function
//! is replaced where it is.
const py = @import("../py.zig");
const replace = @import("replace.zig");

const SetWakeupFd = replace.Replacement("_signal", "set_wakeup_fd", applies, call);

/// What is called in its place: takes and returns the same.
var instead: ?*py.Object = null;
/// The definition as it was.
var before: py.MethodDef = .{};

/// The interpreter that golibx is in.
var interpreter: ?*py.Interpreter = null;

/// Others have no main thread that may set it.
inline fn applies() bool {
    return instead != null and py.PyInterpreterState_Get() == interpreter;
}

fn call(c: replace.Call) ?*py.Object {
    return py.extra.PyObject_Vectorcall(instead.?, c.args, @intCast(c.n), c.names);
}

/// replace_set_wakeup_fd(function): returns the interpreter's own function. Not a second time.
pub fn install(function: *py.Object) ?*py.Object {
    if (instead != null)
        return py.raise(py.exc.runtimeError(), "signal.set_wakeup_fd() is replaced already", .{});
    const holder = py.PyImport_ImportModule("_signal") orelse return null;
    defer py.decref(holder);
    SetWakeupFd.install() catch |e| return switch (e) {
        error.Raised => null,
        error.Missing => py.raise(
            py.exc.importError(),
            "golibx cannot replace signal.set_wakeup_fd(): this interpreter has none",
            .{},
        ),
    };
    before = SetWakeupFd.entry.def.?.*;
    before.function = SetWakeupFd.entry.original;
    const own = py.PyCFunction_NewEx(&before, holder, null) orelse {
        SetWakeupFd.restore();
        return null;
    };
    interpreter = py.PyInterpreterState_Get();
    instead = py.incref(function);
    return own;
}
