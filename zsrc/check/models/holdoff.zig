//! serial/holdoff.zig: sysmon asks, while two fork.
const check = @import("../explorer.zig");
const holdoff = @import("../../serial/holdoff.zig");

pub fn Forks(comptime Sim: type) type {
    const Env = struct {
        pub const planted = if (@hasDecl(Sim, "planted")) Sim.planted else .none;
        pub const Atomic = Sim.Atomic;
        pub const yield = Sim.spin;
    };
    return struct {
        h: holdoff.HoldOff(Env) = .{},
        /// The queue, half changed in between.
        half: Sim.Atomic(bool) = .init(false),
        asked: u32 = 0,

        const Self = @This();
        pub const threads = .{ .{ "sysmon", asks }, .{ "one", forks }, .{ "another", forks } };

        fn asks(m: *Self) void {
            for (0..2) |_| {
                if (!m.h.begin()) continue;
                m.half.store(true, .monotonic);
                m.half.store(false, .monotonic);
                m.asked += 1;
                m.h.end();
            }
        }

        fn forks(m: *Self) void {
            m.h.hold();
            check.expect(!m.half.load(.monotonic), "a fork copies a queue that is half changed");
            check.expect(!m.half.load(.monotonic), "a fork copies a queue that is half changed");
            m.h.letGo();
        }

        pub fn end(m: *Self) void {
            check.expect(m.h.held.load(.monotonic) == 0, "it is held off for ever");
            // Nobody is in the way any more.
            asks(m);
            check.expect(m.asked >= 2, "nobody may ask");
        }
    };
}
