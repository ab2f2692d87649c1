//! Calls of golibx as preemption points, for explored runs: sched/explore.zig.
//!
//! A plain run must not pay for it. CPython looks a method's function up in its PyMethodDef at
//! every call, so the tables of the methods have a second set of functions, which give way first,
//! and a run that wants points has these in place while it lasts. `for value in ch` calls a slot of
//! the type instead; there the function is found in the type by its address, and replaced.
const std = @import("std");
const py = @import("py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const classes = @import("classes.zig");

const lane = &host.the_lane;

/// Others may go on here, if the caller is a goroutine of the program's. `object` is what the call
/// is a method of: those that are about to use the same one may race.
fn point(object: ?*py.Object) void {
    const g = lane.here() orelse return;
    if (g.system or g.no_preempt > 0 or goroutine.of(g).ended) return;
    lane.giveWay(g, @intFromPtr(object));
}

/// Puts the points in place, or takes them away. `functions` are the module's.
pub fn set(functions: Table, on: bool) void {
    functions.set(on);
    inline for (classes.all) |class| class.setPoints(on);
}

/// A table of methods whose functions can be replaced.
pub const Table = struct {
    live: []py.MethodDef,
    plain: []const py.MethodDef,
    pointed: []const py.MethodDef,

    /// All methods are points, of those with an underscore only the ones that `with` calls.
    /// `defs` has its end mark.
    pub fn of(comptime defs: []const py.MethodDef) Table {
        return named(defs, null);
    }

    /// Only the methods of these names are points.
    pub fn named(comptime defs: []const py.MethodDef, comptime names: ?[]const []const u8) Table {
        const Tables = struct {
            var live = defs[0..defs.len].*;
            const pointed = blk: {
                @setEvalBranchQuota(100_000);
                var result = defs[0..defs.len].*;
                for (&result) |*def| if (isPoint(def.*, names)) {
                    def.function = pointedFunction(def.*, names != null);
                };
                break :blk result;
            };
        };
        return .{ .live = &Tables.live, .plain = defs, .pointed = &Tables.pointed };
    }

    pub fn methods(comptime t: Table) [*]const py.MethodDef {
        return t.live.ptr;
    }

    pub fn set(t: Table, on: bool) void {
        @memcpy(t.live, if (on) t.pointed else t.plain);
    }
};

fn isPoint(comptime def: py.MethodDef, comptime names: ?[]const []const u8) bool {
    const name = std.mem.span(def.name orelse return false);
    if (names) |some| {
        for (some) |each| if (std.mem.eql(u8, each, name)) return true;
        return false;
    }
    return name[0] != '_' or std.mem.eql(u8, name, "__enter__") or std.mem.eql(
        u8,
        name,
        "__exit__",
    );
}

const O = ?*py.Object;
const Args = ?[*]const *py.Object;
const Plain = *const fn (O, O) callconv(.c) O;
const Fast = *const fn (O, Args, py.Ssize) callconv(.c) O;
const Keywords = *const fn (O, Args, py.Ssize, O) callconv(.c) O;

/// The function of `def` with a point before it. One of those that were named is a module's.
fn pointedFunction(comptime def: py.MethodDef, comptime named_only: bool) *const anyopaque {
    const kind = def.flags & ~@as(c_int, py.METH_CLASS);
    const F = struct {
        fn plain(self: O, arg: O) callconv(.c) O {
            point(if (named_only) null else self);
            return @as(Plain, @ptrCast(@alignCast(def.function.?)))(self, arg);
        }
        fn fast(self: O, args: Args, n: py.Ssize) callconv(.c) O {
            point(if (named_only) null else self);
            return @as(Fast, @ptrCast(@alignCast(def.function.?)))(self, args, n);
        }
        fn keywords(self: O, args: Args, n: py.Ssize, kw: O) callconv(.c) O {
            point(if (named_only) null else self);
            return @as(Keywords, @ptrCast(@alignCast(def.function.?)))(self, args, n, kw);
        }
    };
    return switch (kind) {
        py.METH_NOARGS, py.METH_O => @ptrCast(&F.plain),
        py.METH_FASTCALL => @ptrCast(&F.fast),
        py.METH_FASTCALL | py.METH_KEYWORDS => @ptrCast(&F.keywords),
        else => @compileError("a method of a kind that has no point"),
    };
}

/// A type's function for the next value of an iteration.
pub const Next = struct {
    type: **py.Type,
    plain: Function,
    pointed: Function,

    const Function = *const fn (*py.Object) callconv(.c) ?*py.Object;

    pub fn of(comptime t: **py.Type, comptime next: Function) Next {
        const F = struct {
            fn pointed(o: *py.Object) callconv(.c) ?*py.Object {
                point(o);
                return next(o);
            }
        };
        return .{ .type = t, .plain = next, .pointed = F.pointed };
    }

    pub fn set(n: Next, on: bool) void {
        const wanted = if (on) n.pointed else n.plain;
        const present = py.PyType_GetSlot(n.type.*, py.slot.tp_iternext);
        if (present == @as(?*anyopaque, @ptrCast(@constCast(wanted)))) return;
        const words: [*]?*anyopaque = @ptrCast(@alignCast(n.type.*));
        for (words[0..words_of_a_type]) |*word| {
            if (word.* == present) word.* = @ptrCast(@constCast(wanted));
        }
    }
};

/// The slots of a type object's own, the others follow it.
const words_of_a_type = 50;
