//! Calls of golibx as points at which something may happen: in explored runs a preemption
//! (serial/explore.zig), in others what `disturb` asks for.
//!
//! A plain run must not pay for it. CPython looks a method's function up in its PyMethodDef at
//! every call, so the tables of the methods have a second set of functions, which give way first,
//! and a run that wants points has these in place while it lasts. `for value in ch` calls a slot of
//! the type instead; there the function is found in the type by its address, and replaced.
const std = @import("std");
const os = @import("../../os/os.zig");
const G = @import("../../serial/g.zig").G;
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const classes = @import("../classes.zig");
const explore = @import("../../serial/explore.zig");

const lane = &host.the_lane;

/// What `disturb` has asked for; all of it is the interpreter lock's.
const Disturbance = struct {
    chance: explore.Chance,
    /// One in so many calls gives way, is delayed; 0: none.
    preempt: u64,
    delay: u64,
    /// The longest delay.
    delay_ns: u64,
    counts: Counts = .{},

    fn draws(d: *Disturbance, one_in: u64) bool {
        return one_in > 0 and d.chance.below(one_in) == 0;
    }
};

pub const Counts = struct { calls: u64 = 0, preempted: u64 = 0, delayed: u64 = 0 };

var disturbance: ?Disturbance = null;

/// Others may go on here, if the caller is a goroutine of the program's. `object` is what the call
/// is a method of: those that are about to use the same one may race.
fn point(object: ?*py.Object) void {
    const g = lane.here() orelse return;
    if (g.system or g.no_preempt > 0 or goroutine.of(g).ended) return;
    if (disturbance) |*d| return disturbHere(d, g);
    lane.giveWay(g, @intFromPtr(object));
}

/// The draws come first: others may draw while this goroutine waits, or take it all back.
fn disturbHere(d: *Disturbance, g: *G) void {
    d.counts.calls += 1;
    const gives_way, const is_delayed = .{ d.draws(d.preempt), d.draws(d.delay) };
    const ns = if (is_delayed) 1 + d.chance.below(d.delay_ns) else 0;
    if (gives_way) {
        d.counts.preempted += 1;
        lane.gosched(g);
    }
    if (ns == 0) return;
    if (disturbance) |*now| now.counts.delayed += 1;
    lane.prepare(g);
    // What interrupts it stays pending, for a call that waits: this one may be an unlock.
    _ = lane.park(g, .sleep, os.nanotime() + ns);
}

/// From now on, and until the run ends or `undisturb`. False if the points are an explored run's.
pub fn disturb(functions: Table, seed: u64, preempt: u64, delay: u64, delay_ns: u64) bool {
    if (lane.options.explore or lane.options.virtual_time) return false;
    disturbance = .{
        .chance = .init(seed),
        .preempt = preempt,
        .delay = delay,
        .delay_ns = delay_ns,
    };
    setAll(functions, true);
    return true;
}

/// What it came to so far.
pub fn counts() Counts {
    return if (disturbance) |d| d.counts else .{};
}

/// Puts the points in place, or takes them away. `functions` are the module's.
pub fn set(functions: Table, on: bool) void {
    disturbance = null;
    setAll(functions, on);
}

fn setAll(functions: Table, on: bool) void {
    functions.set(on);
    inline for (classes.all) |class| class.setPoints(on);
}

/// A method's definition, and the function in it as what it is.
pub const Entry = struct {
    def: py.MethodDef,
    function: py.Function,

    pub fn of(name: [*:0]const u8, function: py.Function, doc: [*:0]const u8) Entry {
        return .{ .def = .of(name, function, doc), .function = function };
    }
};

/// A table of methods with functions that can be replaced, and its end mark.
pub const Table = struct {
    live: []py.MethodDef,
    plain: []const py.MethodDef,
    pointed: []const py.MethodDef,

    /// All methods are points, of those with an underscore only the ones that `with` calls.
    pub fn of(comptime entries: []const Entry) Table {
        return made(entries, null);
    }

    /// Functions of the module's. Only those of these names are points.
    pub fn named(comptime entries: []const Entry, comptime names: []const []const u8) Table {
        return made(entries, names);
    }

    fn made(comptime entries: []const Entry, comptime names: ?[]const []const u8) Table {
        const Tables = struct {
            var live = plain;
            const plain = blk: {
                var result: [entries.len + 1]py.MethodDef = @splat(.{});
                for (entries, result[0..entries.len]) |e, *def| def.* = e.def;
                break :blk result;
            };
            const pointed = blk: {
                @setEvalBranchQuota(100_000);
                var result = plain;
                var found: usize = 0;
                for (entries, result[0..entries.len]) |e, *def| if (isPoint(def.name.?, names)) {
                    def.function = pointedFunction(e.function, names == null).address();
                    found += 1;
                };
                if (names) |some| if (found != some.len) @compileError("a point is no function");
                break :blk result;
            };
        };
        return .{ .live = &Tables.live, .plain = &Tables.plain, .pointed = &Tables.pointed };
    }

    pub fn set(t: Table, on: bool) void {
        @memcpy(t.live, if (on) t.pointed else t.plain);
    }
};

fn isPoint(comptime named: [*:0]const u8, comptime names: ?[]const []const u8) bool {
    const name = std.mem.span(named);
    const some = names orelse &.{ "__enter__", "__exit__" };
    for (some) |each| if (std.mem.eql(u8, each, name)) return true;
    return names == null and name[0] != '_';
}

const O = ?*py.Object;

/// The function with a point before it, which is about the object that it is a method of.
fn pointedFunction(comptime function: py.Function, comptime is_method: bool) py.Function {
    const F = struct {
        fn plain(self: O, arg: O) callconv(.c) O {
            point(if (is_method) self else null);
            return switch (function) {
                .none, .one => |f| f(self, arg),
                else => unreachable,
            };
        }
        fn fast(self: O, args: py.Args, n: py.Ssize) callconv(.c) O {
            point(if (is_method) self else null);
            return function.fast(self, args, n);
        }
        fn keywords(self: O, args: py.Args, n: py.Ssize, names: O) callconv(.c) O {
            point(if (is_method) self else null);
            return function.keywords(self, args, n, names);
        }
    };
    return switch (function) {
        .none => .{ .none = F.plain },
        .one => .{ .one = F.plain },
        .fast => .{ .fast = F.fast },
        .keywords => .{ .keywords = F.keywords },
        .method, .tuple, .tuple_and_dict => @compileError("a function of a kind that has no point"),
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
        const present = py.getSlot(n.type.*, "tp_iternext");
        py.replaceSlot(n.type.*, "tp_iternext", present, if (on) n.pointed else n.plain);
    }
};
