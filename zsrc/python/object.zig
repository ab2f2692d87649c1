//! Python objects around a value of the core: what the types of golibx.sync have in common. An
//! object is its header, its weak references and the value, and holds no reference to other objects
//! unless the type says so.
const py = @import("py.zig");

/// An object around a `T`.
pub fn Object(comptime T: type) type {
    return struct {
        pub const Layout = extern struct {
            ob: py.Object,
            weakrefs: ?*py.Object,
            value: [@sizeOf(T)]u8 align(@alignOf(T)),
        };

        pub inline fn of(o: *py.Object) *T {
            const layout: *Layout = @ptrCast(o);
            return @ptrCast(&layout.value);
        }

        /// The object that `value` is in.
        pub inline fn objectOf(value: *T) *py.Object {
            return @ptrFromInt(@intFromPtr(value) - @offsetOf(Layout, "value"));
        }

        /// A new object of type `t`.
        pub fn make(t: *py.Type, value: T) ?*py.Object {
            const o = py.PyType_GenericAlloc(t, 0) orelse return null;
            of(o).* = value;
            return o;
        }

        /// Of a value that needs no end of its own.
        pub fn dealloc(o: *py.Object) callconv(.c) void {
            clearWeakrefs(o);
            py.freeObject(o);
        }

        pub fn clearWeakrefs(o: *py.Object) void {
            const layout: *Layout = @ptrCast(o);
            if (layout.weakrefs != null) py.PyObject_ClearWeakRefs(o);
        }

        pub const members = [_]py.MemberDef{
            .{
                .name = "__weaklistoffset__",
                .type = py.T_PYSSIZET,
                .offset = @offsetOf(Layout, "weakrefs"),
                .flags = py.READONLY,
            },
            .{},
        };

        pub fn spec(
            comptime name: [:0]const u8,
            comptime flags: c_uint,
            comptime slots: []const py.Slot,
        ) py.TypeSpec {
            return .{
                .name = name,
                .basicsize = @sizeOf(Layout),
                .flags = py.TPFLAGS_DEFAULT | py.TPFLAGS_IMMUTABLETYPE | flags,
                .slots = slots.ptr,
            };
        }
    };
}

/// The argument of a constructor or method that is an int between `low` and `high`.
pub fn integer(
    value: *py.Object,
    comptime what: []const u8,
    comptime low: i64,
    comptime high: i64,
) ?i64 {
    const n = py.PyLong_AsLongLong(value);
    if (n == -1) {
        if (py.PyErr_Occurred()) |raised| {
            if (py.PyErr_GivenExceptionMatches(raised, py.exc.overflowError()) == 0) return null;
            py.PyErr_Clear();
            _ = py.PyErr_Format(py.exc.valueError(), complaint(what, low, high, "%R"), value);
            return null;
        }
    }
    if (n < low or n > high) {
        _ = py.raise(py.exc.valueError(), comptime complaint(what, low, high, "{d}"), .{n});
        return null;
    }
    return n;
}

fn complaint(
    comptime what: []const u8,
    comptime low: i64,
    comptime high: i64,
    comptime given: []const u8,
) [:0]const u8 {
    const print = @import("std").fmt.comptimePrint;
    return comptime if (high == most)
        print("{s} must be at least {d}, not {s}", .{ what, low, given })
    else
        print("{s} must be between {d} and {d}, not {s}", .{ what, low, high, given });
}

/// No limit but that of the machine's integers.
pub const most = @import("std").math.maxInt(i64);
