//! Python types from Zig functions.
//!
//! A class says once what there is to say, in `Options`: its methods and properties are Zig
//! functions that take a *T, and what CPython wants of it, a type's slots, flags and tables, is
//! derived. The memory of a `T` tells what kind of thing it is: one that begins with the header of
//! a Python object, `ob`, or with what it derives from, `base`, is the object; any other T lies in
//! an object of its own (`Boxed`), with a place for weak references.
//!
//! All classes are listed in classes.zig, from where the module gets its types; one that is not
//! listed does not compile.
const std = @import("std");
const py = @import("py.zig");
const arguments = @import("arguments.zig");
const classes = @import("classes.zig");
const points = @import("host/points.zig");

pub const Given = arguments.Given;
const Signature = arguments.Signature;

// ---- the memory of an object ----

fn Boxed(comptime T: type) type {
    return extern struct {
        ob: py.Object,
        weakrefs: ?*py.Object,
        value: [@sizeOf(T)]u8 align(@alignOf(T)),
    };
}

fn isObject(comptime T: type) bool {
    return @hasField(T, "ob") or @hasField(T, "base");
}

fn Layout(comptime T: type) type {
    return if (isObject(T)) T else Boxed(T);
}

/// What the object `o` is, or has in it.
pub fn valueOf(comptime T: type) fn (*py.Object) callconv(.@"inline") *T {
    return struct {
        inline fn of(o: *py.Object) *T {
            const layout: *Layout(T) = @ptrCast(o);
            return if (comptime isObject(T)) layout else @ptrCast(&layout.value);
        }
    }.of;
}

/// The object that `value` is, or lies in.
pub inline fn objectOf(value: anytype) *py.Object {
    const T = @typeInfo(@TypeOf(value)).pointer.child;
    if (comptime isObject(T)) return @ptrCast(value);
    return @ptrFromInt(@intFromPtr(value) - @offsetOf(Boxed(T), "value"));
}

/// Of its object: for repr().
pub fn addressOf(value: anytype) usize {
    return @intFromPtr(objectOf(value));
}

/// Where the list of weak references is, if a `T` has one.
fn weakrefsOffset(comptime T: type) ?usize {
    if (@hasField(T, "weakrefs")) return @offsetOf(T, "weakrefs");
    return if (@hasField(T, "base")) weakrefsOffset(@FieldType(T, "base")) else null;
}

// ---- what a class consists of ----

/// A method of a class of `T`.
pub fn Method(comptime T: type) type {
    return struct {
        entry: points.Entry,
        const Of = T; // so that those of different classes are different types
    };
}

fn Receiver(comptime function: anytype) type {
    return @typeInfo(@typeInfo(@TypeOf(function)).@"fn".param_types[0].?).pointer.child;
}

/// The method of this signature, such as "wait(timeout=None)": `function`'s first parameter is the
/// object, the others are as Python's.
pub fn method(
    comptime signature: []const u8,
    comptime function: anytype,
    comptime doc: []const u8,
) Method(Receiver(function)) {
    return methodOf(Receiver(function), valueOf(Receiver(function)), signature, function, doc);
}

/// A method of a `T` that `function` does for what `receiver` makes of the object.
pub fn methodOf(
    comptime T: type,
    comptime receiver: anytype,
    comptime signature: []const u8,
    comptime function: anytype,
    comptime doc: []const u8,
) Method(T) {
    const s: Signature = comptime .of(signature);
    return .{ .entry = .of(s.name, arguments.entry(s, receiver, function), s.doc(true, doc)) };
}

/// A function of the module's.
pub fn moduleFunction(
    comptime signature: []const u8,
    comptime function: anytype,
    comptime doc: []const u8,
) Method(void) {
    const s: Signature = comptime .of(signature);
    return .{ .entry = .of(s.name, arguments.entry(s, null, function), s.doc(false, doc)) };
}

/// A property of objects of a class of `T`.
pub fn Property(comptime T: type) type {
    return struct {
        def: py.GetSetDef,
        const Of = T;
    };
}

/// What `get` returns of the object.
pub fn property(
    comptime name: [:0]const u8,
    comptime get: anytype,
    comptime doc: [:0]const u8,
) Property(Receiver(get)) {
    return propertyOf(Receiver(get), valueOf(Receiver(get)), name, get, doc);
}

pub fn propertyOf(
    comptime T: type,
    comptime receiver: anytype,
    comptime name: [:0]const u8,
    comptime get: anytype,
    comptime doc: [:0]const u8,
) Property(T) {
    const F = struct {
        fn getter(o: *py.Object, _: ?*anyopaque) callconv(.c) ?*py.Object {
            const self = receiver(o);
            if (@typeInfo(@TypeOf(self)) != .optional) return arguments.give(get(self));
            return arguments.give(get(self orelse return null));
        }
    };
    return .{ .def = .{ .name = name, .get = F.getter, .doc = doc } };
}

/// What is in a field of the object, which owns it if it is an object.
pub fn field(
    comptime T: type,
    comptime name: [:0]const u8,
    comptime of: []const u8,
    comptime doc: [:0]const u8,
) Property(T) {
    const F = struct {
        fn get(self: *T) @FieldType(T, of) {
            const value = @field(self, of);
            return if (@TypeOf(value) == *py.Object) py.incref(value) else value;
        }
    };
    return property(name, F.get, doc);
}

/// A property that can be set; `set` gets null for `del`, and says by false that an exception is
/// set.
pub fn variable(
    comptime name: [:0]const u8,
    comptime get: anytype,
    comptime set: fn (*Receiver(get), ?*py.Object) bool,
    comptime doc: [:0]const u8,
) Property(Receiver(get)) {
    const F = struct {
        fn setter(o: *py.Object, value: ?*py.Object, _: ?*anyopaque) callconv(.c) c_int {
            return if (set(valueOf(Receiver(get))(o), value)) 0 else -1;
        }
    };
    var made = property(name, get, doc);
    made.def.set = F.setter;
    return made;
}

pub const Constructor = struct {
    signature: Signature,
    function: *const fn (*py.Type, *py.Object, ?*py.Object) callconv(.c) ?*py.Object,
};

/// `function` makes of the arguments a value for an object, or, if its first parameter is the type,
/// the object. A type in its place: the value of its defaults.
pub fn constructor(comptime signature: []const u8, comptime function: anytype) Constructor {
    const s: Signature = comptime .of(signature);
    const F = struct {
        fn new(t: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
            const given = arguments.parseNew(s, args, kwargs) orelse return null;
            if (@TypeOf(function) == type) return make(t, function{});
            const types = @typeInfo(@TypeOf(function)).@"fn".param_types;
            if (types.len > 0 and types[0] == *py.Type)
                return arguments.convertAndCall(s, function, .{t}, given);
            const value = arguments.convert(s, function, .{}, given) orelse return null;
            return make(t, value);
        }
    };
    return .{ .signature = s, .function = F.new };
}

/// A new object of type `t` with `value` in it.
pub fn make(t: *py.Type, value: anytype) ?*py.Object {
    const o = py.PyType_GenericAlloc(t, 0) orelse return null;
    valueOf(@TypeOf(value))(o).* = value;
    return o;
}

/// What a collector's visit is told.
pub const Visitor = struct {
    function: py.Visit,
    arg: ?*anyopaque,

    /// Not zero: the visit is over.
    pub fn all(v: Visitor, objects: []const ?*py.Object) c_int {
        for (objects) |each| {
            const r = v.function(each orelse continue, v.arg);
            if (r != 0) return r;
        }
        return 0;
    }
};

pub fn Options(comptime T: type) type {
    return struct {
        /// With the module's before it.
        name: [:0]const u8,
        doc: [:0]const u8,
        /// Null: programs do not make any.
        new: ?Constructor = null,
        bases: []const type = &.{},
        /// Whether Python code may derive from it.
        is_base: bool = false,
        is_immutable: bool = true,
        /// More of the type's flags.
        flags: c_uint = 0,
        methods: []const Method(T) = &.{},
        /// Whether calls of methods are preemption points: see points.zig.
        has_points: bool = true,
        properties: []const Property(T) = &.{},
        /// Of Class[item], for annotations; null: that is an error.
        generic: ?[:0]const u8 = null,
        repr: ?fn (*T) ?*py.Object = null,
        /// Of len(); null with an exception set. An object is true whatever it is: `if ch:` would
        /// be a trap.
        len: ?fn (*T) ?usize = null,
        /// The object is an iterator; null without an exception is the end.
        next: ?fn (*T) ?*py.Object = null,
        /// Visits what it holds, for the collector, which knows of its objects then.
        traverse: ?fn (*T, Visitor) c_int = null,
        /// Lets go of what may lead back to it.
        clear: ?fn (*T) void = null,
        /// Lets go of all, if that is not what `clear` does.
        deinit: ?fn (*T) void = null,
        /// Whether goroutines wait on objects of it until other code that has the object wakes
        /// them.
        is_waited_on: bool = false,
        /// What it holds, where no cycle can lead through it and the collector need not know.
        held: ?fn (*T) *py.Object = null,
        /// Those for which the others are not enough.
        slots: py.Slots = .{},
    };
}

// ---- the class ----

pub fn Class(comptime T: type, comptime options: Options(T)) type {
    return struct {
        const Self = @This();
        pub const of = valueOf(T);
        pub const is_waited_on = options.is_waited_on;
        pub const held = options.held;
        pub var python_type: *py.Type = undefined;

        comptime {
            if (!classes.has(Self)) @compileError(options.name ++ " is not listed in classes.zig");
        }

        /// Whether `o` is one, and of no derived class.
        pub inline fn is(o: *py.Object) bool {
            return o.type == python_type;
        }

        /// Adds the type to the module. False with an exception set.
        pub fn add(module: *py.Object) bool {
            const n = options.bases.len;
            const bases: ?*py.Object = if (n == 0) null else py.PyTuple_New(n) orelse return false;
            inline for (options.bases, 0..) |base, i|
                _ = py.PyTuple_SetItem(bases.?, i, py.incref(&base.python_type.ob));
            defer py.xdecref(bases);
            const t = py.PyType_FromModuleAndSpec(module, &spec, bases) orelse return false;
            python_type = @ptrCast(t);
            const dot = comptime std.mem.findScalarLast(u8, options.name, '.').?;
            return py.PyModule_AddObjectRef(module, options.name[dot + 1 ..], t) == 0;
        }

        /// Has calls be preemption points, or not any more.
        pub fn setPoints(on: bool) void {
            if (!options.has_points) return;
            table.set(on);
            if (options.next != null) points.Next.of(&python_type, next).set(on);
        }

        const table: points.Table = .of(&methods);
        const methods = blk: {
            const n = options.methods.len;
            var all: [n + @intFromBool(options.generic != null)]points.Entry = undefined;
            for (options.methods, all[0..n]) |m, *entry| entry.* = m.entry;
            if (options.generic) |doc| {
                all[n] = .of("__class_getitem__", .{ .one = genericAlias }, doc);
                all[n].def.flags |= py.METH_CLASS;
            }
            break :blk all;
        };

        const properties = blk: {
            var all: [options.properties.len + 1]py.GetSetDef = @splat(.{});
            for (options.properties, all[0..options.properties.len]) |p, *def| def.* = p.def;
            break :blk all;
        };

        const weakrefs = weakrefsOffset(Layout(T));
        const members = [_]py.MemberDef{ .{
            .name = "__weaklistoffset__",
            .type = py.T_PYSSIZET,
            .offset = weakrefs orelse 0,
            .flags = py.READONLY,
        }, .{} };

        pub const spec: py.TypeSpec = .{
            .name = options.name,
            .basicsize = @sizeOf(Layout(T)),
            .flags = py.TPFLAGS_DEFAULT | options.flags |
                (if (options.traverse != null) py.TPFLAGS_HAVE_GC else 0) |
                (if (options.is_base) py.TPFLAGS_BASETYPE else 0) |
                (if (options.is_immutable) py.TPFLAGS_IMMUTABLETYPE else 0) |
                (if (options.new == null) py.TPFLAGS_DISALLOW_INSTANTIATION else 0),
            .slots = slots().table(),
        };

        fn slots() py.Slots {
            var all = options.slots;
            all.tp_doc = if (options.new) |n| n.signature.doc(false, options.doc) else options.doc;
            if (options.new) |n| all.tp_new = n.function;
            if (methods.len > 0) all.tp_methods = table.live.ptr;
            if (options.properties.len > 0) all.tp_getset = &properties;
            if (weakrefs != null and options.bases.len == 0) all.tp_members = &members;
            if (all.tp_dealloc == null) all.tp_dealloc = dealloc;
            if (options.repr != null) all.tp_repr = repr;
            if (options.traverse != null) all.tp_traverse = traverse;
            if (options.clear != null) all.tp_clear = clear;
            if (options.len != null) {
                all.sq_length = length;
                all.nb_bool = alwaysTrue;
            }
            if (options.next != null) {
                all.tp_iter = itself;
                all.tp_iternext = next;
            }
            return all;
        }

        fn dealloc(o: *py.Object) callconv(.c) void {
            if (options.traverse != null) py.PyObject_GC_UnTrack(o);
            clearWeakrefs(o);
            if (options.deinit) |deinit| deinit(of(o));
            if (options.deinit == null) if (options.clear) |let_go| let_go(of(o));
            free(o);
        }

        pub inline fn clearWeakrefs(o: *py.Object) void {
            const list: *?*py.Object = @ptrFromInt(@intFromPtr(o) + (weakrefs orelse return));
            if (list.* != null) py.PyObject_ClearWeakRefs(o);
        }

        /// The last of a dealloc.
        pub inline fn free(o: *py.Object) void {
            if (options.traverse == null or options.is_base) return py.freeObject(o);
            const t = o.type;
            py.PyObject_GC_Del(o);
            py.decref(&t.ob);
        }

        fn repr(o: *py.Object) callconv(.c) ?*py.Object {
            return options.repr.?(of(o));
        }

        fn traverse(o: *py.Object, visit: py.Visit, arg: ?*anyopaque) callconv(.c) c_int {
            const r = visit(&o.type.ob, arg);
            return if (r != 0) r else options.traverse.?(of(o), .{ .function = visit, .arg = arg });
        }

        fn clear(o: *py.Object) callconv(.c) c_int {
            options.clear.?(of(o));
            return 0;
        }

        fn length(o: *py.Object) callconv(.c) py.Ssize {
            return @intCast(options.len.?(of(o)) orelse return -1);
        }

        fn next(o: *py.Object) callconv(.c) ?*py.Object {
            return options.next.?(of(o));
        }
    };
}

fn alwaysTrue(_: *py.Object) callconv(.c) c_int {
    return 1;
}

fn itself(o: *py.Object) callconv(.c) ?*py.Object {
    return py.incref(o);
}

/// What Class[item] is at run time, where the class is generic for type checkers.
fn genericAlias(class: ?*py.Object, item: ?*py.Object) callconv(.c) ?*py.Object {
    const alias = py.importFrom("types", "GenericAlias") orelse return null;
    defer py.decref(alias);
    return py.call(alias, &.{ class.?, item.? });
}
