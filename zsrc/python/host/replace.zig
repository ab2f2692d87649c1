//! Built-in functions and methods of CPython's that do something else in goroutines.
//!
//! What a built-in function does is in its PyMethodDef, which the interpreter reads at every call,
//! in specialised bytecode too. So the function is replaced where it is: references that were taken
//! before follow. The object, its name, signature and documentation stay as they are.
//!
//! A replacement is written once, for METH_FASTCALL | METH_KEYWORDS; the original's own calling
//! convention, which differs between versions, is what the interpreter uses. `applies` is asked
//! first: where it says no the original gets the call as it came.
//!
//! The definitions are the process's, and other interpreters in it use them too, under locks of
//! their own: `applies` must know those apart. `install` and `restore` need the interpreter's lock.
const std = @import("std");
const py = @import("../py.zig");

/// A call of the replaced function.
pub const Call = struct {
    /// The object, the module for a function; and the class of a METH_METHOD.
    self: ?*py.Object,
    class: ?*py.Object = null,
    /// Positional and then keyword arguments, and the names of these.
    args: py.Args,
    n: py.Ssize,
    names: ?*py.Object = null,
};

pub const Entry = struct {
    module: [:0]const u8,
    /// `function`, or `Class.method`.
    path: [:0]const u8,
    /// Null while the original is in its place.
    def: ?*py.MethodDef = null,
    original: *const anyopaque = undefined,
    /// How often the replacement was what applied.
    calls: u64 = 0,
    next: ?*Entry = null,
    listed: bool = false,
};

var entries: ?*Entry = null;

pub const Error = error{
    /// An exception is set.
    Raised,
    /// There is no such function in this version.
    Missing,
};

/// More arguments than that go to the original, whatever the replacement is for.
const most_args = 16;

/// The module's function, or its class's method, `path` is replaced by `function` wherever
/// `applies`.
pub fn Replacement(
    comptime module: [:0]const u8,
    comptime path: [:0]const u8,
    comptime applies: fn () callconv(.@"inline") bool,
    comptime function: fn (Call) ?*py.Object,
) type {
    return struct {
        pub var entry: Entry = .{ .module = module, .path = path };

        pub fn install() Error!void {
            if (entry.def != null) return;
            const def = try find(&entry);
            const replacement = adapted(def.flags) orelse {
                _ = py.raise(
                    py.exc.importError(),
                    "golibx cannot replace {s}.{s}: its calling convention is 0x{x}",
                    .{ module, path, def.flags },
                );
                return error.Raised;
            };
            entry.original = def.function.?;
            entry.def = def;
            list(&entry);
            @atomicStore(?*const anyopaque, &def.function, replacement, .release);
        }

        pub fn restore() void {
            const def = entry.def orelse return;
            @atomicStore(?*const anyopaque, &def.function, entry.original, .release);
            entry.def = null;
        }

        inline fn original(comptime T: type) *const T {
            return @ptrCast(@alignCast(entry.original));
        }

        /// What it did before.
        pub fn callOriginal(c: Call) ?*py.Object {
            return switch (convention(entry.def.?.flags)) {
                noargs => original(NoArgs)(c.self, null),
                one => original(NoArgs)(c.self, c.args[0]),
                fast => original(Fast)(c.self, c.args, c.n),
                fast_keywords => original(FastKeywords)(c.self, c.args, c.n, c.names),
                method => original(Method)(c.self, c.class, c.args, c.n, c.names),
                else => |flags| blk: {
                    const tuple = tupleOf(c.args, c.n) orelse break :blk null;
                    defer py.decref(tuple);
                    if (flags == varargs)
                        break :blk original(NoArgs)(c.self, tuple);
                    const dict = if (c.names) |names|
                        dictOf(c, names) orelse break :blk null
                    else
                        null;
                    defer py.xdecref(dict);
                    break :blk original(Keywords)(c.self, tuple, dict);
                },
            };
        }

        fn adapted(flags: c_int) ?*const anyopaque {
            const all = [_]py.Function{
                .{ .none = onNoArgs },
                .{ .one = onOne },
                .{ .fast = onFast },
                .{ .keywords = onFastKeywords },
                .{ .method = onMethod },
                .{ .tuple = onVarArgs },
                .{ .tuple_and_dict = onKeywords },
            };
            for (all) |each| if (each.flags() == convention(flags)) return each.address();
            return null;
        }

        inline fn run(c: Call) ?*py.Object {
            entry.calls += 1;
            return function(c);
        }

        fn onNoArgs(self: ?*py.Object, nothing: ?*py.Object) callconv(.c) ?*py.Object {
            if (!applies()) return original(NoArgs)(self, nothing);
            return run(.{ .self = self, .args = undefined, .n = 0 });
        }

        fn onOne(self: ?*py.Object, arg: ?*py.Object) callconv(.c) ?*py.Object {
            if (!applies()) return original(NoArgs)(self, arg);
            const args = [_]*py.Object{arg.?};
            return run(.{ .self = self, .args = &args, .n = 1 });
        }

        fn onFast(self: ?*py.Object, args: py.Args, n: py.Ssize) callconv(.c) ?*py.Object {
            if (!applies()) return original(Fast)(self, args, n);
            return run(.{ .self = self, .args = args, .n = n });
        }

        fn onFastKeywords(
            self: ?*py.Object,
            args: py.Args,
            n: py.Ssize,
            names: ?*py.Object,
        ) callconv(.c) ?*py.Object {
            if (!applies())
                return original(FastKeywords)(self, args, n, names);
            return run(.{ .self = self, .args = args, .n = n, .names = names });
        }

        fn onMethod(
            self: ?*py.Object,
            class: ?*py.Object,
            args: py.Args,
            n: py.Ssize,
            names: ?*py.Object,
        ) callconv(.c) ?*py.Object {
            if (!applies())
                return original(Method)(self, class, args, n, names);
            return run(.{ .self = self, .class = class, .args = args, .n = n, .names = names });
        }

        fn onVarArgs(self: ?*py.Object, tuple: ?*py.Object) callconv(.c) ?*py.Object {
            const n = py.PyTuple_Size(tuple.?);
            if (!applies() or n > most_args)
                return original(NoArgs)(self, tuple);
            var args: [most_args]*py.Object = undefined;
            for (args[0..@intCast(n)], 0..) |*arg, i|
                arg.* = py.PyTuple_GetItem(tuple.?, @intCast(i)).?;
            return run(.{ .self = self, .args = &args, .n = n });
        }

        fn onKeywords(
            self: ?*py.Object,
            tuple: ?*py.Object,
            dict: ?*py.Object,
        ) callconv(.c) ?*py.Object {
            const n = py.PyTuple_Size(tuple.?);
            const named = if (dict) |d| py.PyDict_Size(d) else 0;
            if (!applies() or n + named > most_args)
                return original(Keywords)(self, tuple, dict);
            var args: [most_args]*py.Object = undefined;
            for (args[0..@intCast(n)], 0..) |*arg, i|
                arg.* = py.PyTuple_GetItem(tuple.?, @intCast(i)).?;
            if (named == 0) return run(.{ .self = self, .args = &args, .n = n });
            const names = py.PyTuple_New(named) orelse return null;
            defer py.decref(names);
            var at: py.Ssize = 0;
            var key: ?*py.Object = null;
            var value: ?*py.Object = null;
            var i: py.Ssize = 0;
            while (i < named and py.PyDict_Next(dict.?, &at, &key, &value) != 0) : (i += 1) {
                _ = py.PyTuple_SetItem(names, i, py.incref(key.?));
                args[@intCast(n + i)] = value.?;
            }
            return run(.{ .self = self, .args = &args, .n = n, .names = names });
        }
    };
}

const NoArgs = fn (?*py.Object, ?*py.Object) callconv(.c) ?*py.Object;
const Keywords = fn (?*py.Object, ?*py.Object, ?*py.Object) callconv(.c) ?*py.Object;
const Fast = fn (?*py.Object, py.Args, py.Ssize) callconv(.c) ?*py.Object;
const FastKeywords = fn (?*py.Object, py.Args, py.Ssize, ?*py.Object) callconv(.c) ?*py.Object;
const Method =
    fn (?*py.Object, ?*py.Object, py.Args, py.Ssize, ?*py.Object) callconv(.c) ?*py.Object;

// Flags of CPython's Include/methodobject.h that say how a function is called.
const varargs = py.METH_VARARGS;
const noargs = py.METH_NOARGS;
const one = py.METH_O;
const fast = py.METH_FASTCALL;
const fast_keywords = py.METH_FASTCALL | py.METH_KEYWORDS;
const method = py.METH_METHOD | fast_keywords;

fn convention(flags: c_int) c_int {
    return flags & (varargs | method | noargs | one);
}

fn tupleOf(args: py.Args, n: py.Ssize) ?*py.Object {
    const tuple = py.PyTuple_New(n) orelse return null;
    for (0..@intCast(n)) |i| _ = py.PyTuple_SetItem(tuple, @intCast(i), py.incref(args[i]));
    return tuple;
}

fn dictOf(c: Call, names: *py.Object) ?*py.Object {
    const dict = py.PyDict_New() orelse return null;
    for (0..@intCast(py.PyTuple_Size(names))) |i| {
        const key = py.PyTuple_GetItem(names, @intCast(i)).?;
        if (py.PyDict_SetItem(dict, key, c.args[@as(usize, @intCast(c.n)) + i]) == 0) continue;
        py.decref(dict);
        return null;
    }
    return dict;
}

/// A built-in function object: its definition is its first field. Of a method's descriptor it is
/// the fourth, after its class, name and qualified name. (Include/cpython/methodobject.h,
/// descrobject.h; the same in 3.11 to 3.15.)
const Function = extern struct { ob: py.Object, def: *py.MethodDef };
const Descriptor = extern struct {
    ob: py.Object,
    class: *py.Type,
    name: *py.Object,
    qualname: ?*py.Object,
    def: *py.MethodDef,
};

fn find(entry: *const Entry) Error!*py.MethodDef {
    const dot = std.mem.indexOfScalar(u8, entry.path, '.');
    const name = entry.path[if (dot) |at| at + 1 else 0..];
    const def = if (dot) |at| blk: {
        const class = classOf(entry.module, entry.path[0..at]) orelse return error.Raised;
        defer py.decref(class);
        const found = py.PyObject_GetAttrString(class, name.ptr) orelse return missing();
        defer py.decref(found);
        if (!py.isMethodDescriptor(found)) return refuse(entry);
        // Of a base class it is the base's.
        const descriptor: *Descriptor = @ptrCast(found);
        if (@as(*py.Object, @ptrCast(descriptor.class)) != class) return refuse(entry);
        break :blk descriptor.def;
    } else blk: {
        const holder = py.PyImport_ImportModule(entry.module.ptr) orelse return error.Raised;
        defer py.decref(holder);
        if (ofModule(holder, name)) |def| break :blk def;
        const found = py.PyObject_GetAttrString(holder, name.ptr) orelse return missing();
        defer py.decref(found);
        if (!py.isBuiltinFunction(found)) return refuse(entry);
        const def = @as(*Function, @ptrCast(found)).def;
        if (py.PyCFunction_GetFunction(found) != def.function) return refuse(entry);
        break :blk def;
    };
    if (!std.mem.eql(u8, std.mem.span(def.name.?), name)) return refuse(entry);
    return def;
}

/// The definition of a C module's function, whatever has its name there. Null, without an
/// exception, if there is none.
pub fn definitionOf(module: [:0]const u8, name: []const u8) ?*py.MethodDef {
    const holder = py.PyImport_ImportModule(module.ptr) orelse {
        py.PyErr_Clear();
        return null;
    };
    defer py.decref(holder);
    return ofModule(holder, name);
}

/// A C module's function, whatever has its name there. Null with an exception set.
pub fn builtin(module: [:0]const u8, name: [:0]const u8) ?*py.Object {
    const holder = py.PyImport_ImportModule(module.ptr) orelse return null;
    defer py.decref(holder);
    const def = ofModule(holder, name) orelse return py.PyObject_GetAttrString(holder, name.ptr);
    return py.PyCFunction_NewEx(def, holder, null);
}

/// The module's class that is C code, a new reference; null with an exception set. Its name there
/// may be a program's by now, like a function's: then it is looked for among all classes that there
/// are.
pub fn classOf(module: [:0]const u8, name: []const u8) ?*py.Object {
    const holder = py.PyImport_ImportModule(module.ptr) orelse return null;
    defer py.decref(holder);
    if (!knowPythonsDealloc()) return null;
    var buffer: [64]u8 = undefined;
    const text = std.fmt.bufPrintSentinel(&buffer, "{s}", .{name}, 0) catch unreachable;
    if (py.PyObject_GetAttrString(holder, text.ptr)) |found| {
        if (isNative(found) and hasText(found, "__name__", name)) return found;
        py.decref(found);
    } else py.PyErr_Clear();
    const top = py.importFrom("builtins", "object") orelse return null;
    defer py.decref(top);
    if (searchBelow(top, module, name)) |class| return class;
    if (py.PyErr_Occurred() == null)
        _ = py.raise(py.exc.importError(), "golibx finds no class {s}.{s}", .{ module, name });
    return null;
}

/// Null also where there is none, without an exception.
fn searchBelow(class: *py.Object, module: []const u8, name: []const u8) ?*py.Object {
    const type_of_types: *py.Object = @ptrCast(py.exc.typeError().type);
    // No class below a class of classes has instances of C code's.
    if (class == type_of_types) return null;
    const subclasses = py.PyObject_GetAttrString(type_of_types, "__subclasses__") orelse
        return null;
    defer py.decref(subclasses);
    const all = py.call(subclasses, &.{class}) orelse return null;
    defer py.decref(all);
    for (0..@intCast(py.PyList_Size(all))) |i| {
        const each = py.PyList_GetItem(all, @intCast(i)).?;
        if (isNative(each) and hasText(each, "__name__", name) and
            hasText(each, "__module__", module)) return py.incref(each);
        if (searchBelow(each, module, name)) |found| return found;
        if (py.PyErr_Occurred() != null) return null;
    }
    return null;
}

/// How the instances of all classes are freed that Python code has made.
var pythons_dealloc: @FieldType(py.Slots, "tp_dealloc") = null;

/// False with an exception set.
fn knowPythonsDealloc() bool {
    if (pythons_dealloc != null) return true;
    const name = py.PyUnicode_FromString("") orelse return false;
    defer py.decref(name);
    const bases = py.PyTuple_New(0) orelse return false;
    defer py.decref(bases);
    const names = py.PyDict_New() orelse return false;
    defer py.decref(names);
    const type_of_types: *py.Object = @ptrCast(py.exc.typeError().type);
    const class = py.call(type_of_types, &.{ name, bases, names }) orelse return false;
    defer py.decref(class);
    pythons_dealloc = py.getSlot(@ptrCast(class), "tp_dealloc");
    return true;
}

fn isNative(o: *py.Object) bool {
    if (!py.isType(o)) return false;
    return py.getSlot(@ptrCast(o), "tp_dealloc") != pythons_dealloc;
}

fn hasText(o: *py.Object, name: [*:0]const u8, expected: []const u8) bool {
    const value = py.PyObject_GetAttrString(o, name) orelse {
        py.PyErr_Clear();
        return false;
    };
    defer py.decref(value);
    var len: py.Ssize = 0;
    const text = py.PyUnicode_AsUTF8AndSize(value, &len) orelse {
        py.PyErr_Clear();
        return false;
    };
    return std.mem.eql(u8, text[0..@intCast(len)], expected);
}

/// Where the module, if C code defines it, has its functions from. Its attribute may be a program's
/// by now: ipykernel puts a function of its own in the place of faulthandler.enable.
fn ofModule(module: *py.Object, name: []const u8) ?*py.MethodDef {
    const definition = py.PyModule_GetDef(module) orelse {
        py.PyErr_Clear();
        return null;
    };
    var defs = definition.methods orelse return null;
    while (defs[0].name) |each| : (defs += 1) {
        if (std.mem.eql(u8, std.mem.span(each), name)) return @constCast(&defs[0]);
    }
    return null;
}

fn missing() Error {
    if (py.PyErr_ExceptionMatches(py.exc.attributeError()) == 0) return error.Raised;
    py.PyErr_Clear();
    return error.Missing;
}

fn refuse(entry: *const Entry) Error {
    _ = py.raise(
        py.exc.importError(),
        "golibx cannot replace {s}.{s}: it is not CPython's built-in one; import golibx before " ++
            "what has put another in its place",
        .{ entry.module, entry.path },
    );
    return error.Raised;
}

fn list(entry: *Entry) void {
    if (entry.listed) return;
    entry.listed = true;
    entry.next = entries;
    entries = entry;
}

/// replaced(): a dict of what is replaced at present, by `module.path`, to how often that applied.
pub fn replaced() ?*py.Object {
    const dict = py.PyDict_New() orelse return null;
    var it = entries;
    while (it) |entry| : (it = entry.next) {
        if (entry.def == null) continue;
        var buffer: [128]u8 = undefined;
        const name =
            std.fmt.bufPrintSentinel(&buffer, "{s}.{s}", .{ entry.module, entry.path }, 0) catch
                unreachable;
        if (py.setInt(dict, name.ptr, entry.calls)) continue;
        py.decref(dict);
        return null;
    }
    return dict;
}
