//! What models of the serial lane have of the machine: Ms whose threads are the model's, and whose
//! memory is never used again, so that late users are told.
const std = @import("std");
const check = @import("../explorer.zig");
const engine = @import("../engine.zig");
const Allocator = std.mem.Allocator;

/// For goroutines and Ms of those types; an M has a field `gone`: its memory has been freed.
pub fn Serial(comptime Sim: type, comptime Goroutine: type, comptime Machine: type) type {
    return struct {
        const names = [_][]const u8{ "m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7" };
        var ms: [names.len]?*Machine = undefined;
        var made: u32 = 0;
        var currents: [engine.max_threads]?*Machine = undefined;

        pub fn init() void {
            ms = @splat(null);
            currents = @splat(null);
            made = 0;
        }

        /// So many have not been freed.
        pub fn left() u32 {
            var n: u32 = 0;
            for (ms[0..made]) |m| n += @intFromBool(!m.?.gone);
            return n;
        }

        /// For ending.zig and the like.
        pub const Env = struct {
            pub const planted = Sim.planted;
            pub const G = Goroutine;
            pub const M = Machine;
            pub const nanotime = Sim.nanotime;
            pub const reads = Sim.reads;
            pub const writes = Sim.writes;
            pub const glances = 2;

            pub const Thread = struct {
                sim: Sim.Thread,

                pub fn join(t: @This()) void {
                    t.sim.join();
                }

                pub fn detach(_: @This()) void {}
            };

            pub const FaultStack = struct {
                memory: []u8 = &.{},
                pub const size = 0;

                pub fn enter(_: *FaultStack, _: []u8) void {}
                pub fn leave(_: *FaultStack) void {}
            };

            pub fn current() ?*M {
                return currents[Sim.self()];
            }

            pub fn setCurrent(m: ?*M) void {
                currents[Sim.self()] = m;
            }

            pub fn spawn(
                function: *const fn (?*anyopaque) void,
                arg: ?*anyopaque,
                _: anytype,
            ) error{ThreadLimit}!Thread {
                return .{ .sim = Sim.Thread.spawn(names[made - 1], function, arg) };
            }

            pub fn sleepNs(ns: u64) void {
                var nobody: Sim.Note = .{};
                _ = nobody.sleep(ns);
            }
        };

        /// The lane's allocator.
        pub const Memory = struct {
            pub fn create(_: Memory, comptime T: type) Allocator.Error!*T {
                const m = try Sim.gpa().create(T);
                ms[made] = m;
                made += 1;
                check.nameFields(m, "m");
                return m;
            }

            pub fn destroy(_: Memory, m: anytype) void {
                m.gone = true;
            }

            pub fn alloc(_: Memory, comptime T: type, _: usize) Allocator.Error![]T {
                return &.{};
            }

            pub fn free(_: Memory, _: []u8) void {}
        };
    };
}
