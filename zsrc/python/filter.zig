//! Functions in C that ask a function in Python only where it has something to say.
//! golibx puts functions where the interpreter calls them all the time, as on sys.meta_path. The
//! program's traces and debuggers must not see them, and they must not cost a call of a Python
//! function.
const py = @import("py.zig");

const def: py.MethodDef = .of("only_for", .{ .keywords = call }, null);

/// only_for(names, function, /)
pub fn onlyFor(names: *py.Object, function: *py.Object) ?*py.Object {
    if (py.PyDict_Size(names) < 0) return null;
    const both = py.PyTuple_Pack(2, names, function) orelse return null;
    defer py.decref(both);
    return py.PyCMethod_New(&def, both, null, null);
}

fn call(
    self: ?*py.Object,
    args: py.Args,
    n: py.Ssize,
    kwnames: ?*py.Object,
) callconv(.c) ?*py.Object {
    const names = py.PyTuple_GetItem(self.?, 0) orelse return null;
    if (n > 0) {
        if (py.PyDict_GetItemWithError(names, args[0]) == null)
            return if (py.PyErr_Occurred() == null) py.returnNone() else null;
    }
    const function = py.PyTuple_GetItem(self.?, 1) orelse return null;
    return py.extra.PyObject_Vectorcall(function, args, @intCast(n), kwnames);
}
