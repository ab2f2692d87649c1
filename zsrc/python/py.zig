//! CPython's C API, as much of it as golibx uses: the stable ABI of 3.11, declared by hand, and the
//! few exported functions beyond it, looked up when the module is loaded (`extra`).
//!
//! A program without Python may load the library too, for its C ABI. So the library does not insist
//! on CPython's symbols: all references are weak (`weakReferences`), and code that uses them is
//! reached only through the extension module.
const std = @import("std");
const builtin = @import("builtin");
const os = @import("../os/os.zig");

pub const Object = extern struct {
    refcnt: isize,
    type: *Type,
};
/// Only its header is of interest.
pub const Type = extern struct { ob: Object };
pub const ThreadState = opaque {};
pub const Interpreter = opaque {};
pub const Frame = extern struct { ob: Object };
/// Of a function with METH_FASTCALL.
pub const Args = [*]const *Object;
pub const Ssize = isize;

pub const Visit = *const fn (*Object, ?*anyopaque) callconv(.c) c_int;
pub const TraceFunction = *const fn (?*Object, *Object, c_int, ?*Object) callconv(.c) c_int;

pub const METH_VARARGS = 1;
pub const METH_NOARGS = 4;
pub const METH_O = 8;
pub const METH_FASTCALL = 0x80;
pub const METH_KEYWORDS = 2;
pub const METH_CLASS = 0x10;
pub const METH_METHOD = 0x200;

/// A function of a method's or module's: a member for each way of calling one.
pub const Function = union(enum) {
    none: *const fn (?*Object, ?*Object) callconv(.c) ?*Object,
    one: *const fn (?*Object, ?*Object) callconv(.c) ?*Object,
    fast: *const fn (?*Object, Args, Ssize) callconv(.c) ?*Object,
    keywords: *const fn (?*Object, Args, Ssize, ?*Object) callconv(.c) ?*Object,
    /// With the class that defines it.
    method: *const fn (?*Object, ?*Object, Args, Ssize, ?*Object) callconv(.c) ?*Object,
    tuple: *const fn (?*Object, ?*Object) callconv(.c) ?*Object,
    tuple_and_dict: *const fn (?*Object, ?*Object, ?*Object) callconv(.c) ?*Object,

    pub fn address(function: Function) *const anyopaque {
        return switch (function) {
            inline else => |f| f,
        };
    }

    pub fn flags(function: Function) c_int {
        return switch (function) {
            .none => METH_NOARGS,
            .one => METH_O,
            .fast => METH_FASTCALL,
            .keywords => METH_FASTCALL | METH_KEYWORDS,
            .method => METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
            .tuple => METH_VARARGS,
            .tuple_and_dict => METH_VARARGS | METH_KEYWORDS,
        };
    }
};

pub const MethodDef = extern struct {
    name: ?[*:0]const u8 = null,
    function: ?*const anyopaque = null,
    flags: c_int = 0,
    doc: ?[*:0]const u8 = null,

    pub fn of(name: [*:0]const u8, function: Function, doc: ?[*:0]const u8) MethodDef {
        return .{
            .name = name,
            .function = function.address(),
            .flags = function.flags(),
            .doc = doc,
        };
    }
};

pub const GetSetDef = extern struct {
    name: ?[*:0]const u8 = null,
    get: ?*const fn (*Object, ?*anyopaque) callconv(.c) ?*Object = null,
    set: ?*const fn (*Object, ?*Object, ?*anyopaque) callconv(.c) c_int = null,
    doc: ?[*:0]const u8 = null,
    closure: ?*anyopaque = null,
};

pub const MemberDef = extern struct {
    name: ?[*:0]const u8 = null,
    type: c_int = 0,
    offset: Ssize = 0,
    flags: c_int = 0,
    doc: ?[*:0]const u8 = null,
};

/// Py_EQ, of PyObject_RichCompareBool.
pub const EQ = 2;

pub const T_PYSSIZET = 19;
pub const READONLY = 1;

pub const Slot = extern struct { slot: c_int = 0, pfunc: ?*const anyopaque = null };

pub const TypeSpec = extern struct {
    name: [*:0]const u8,
    basicsize: c_int,
    itemsize: c_int = 0,
    flags: c_uint,
    slots: [*]const Slot,
};

pub const TPFLAGS_DEFAULT = 1 << 18;
pub const TPFLAGS_BASETYPE = 1 << 10;
pub const TPFLAGS_HAVE_GC = 1 << 14;
pub const TPFLAGS_HAVE_VECTORCALL = 1 << 11;
/// Called as obj.method(…), it is given obj first, and no method object is made.
pub const TPFLAGS_METHOD_DESCRIPTOR = 1 << 17;
pub const TPFLAGS_IMMUTABLETYPE = 1 << 8;
pub const TPFLAGS_DISALLOW_INSTANTIATION = 1 << 7;

// Numbers of CPython's Include/typeslots.h.
pub const slot = struct {
    pub const nb_bool = 9;
    pub const sq_length = 45;
    pub const tp_call = 50;
    pub const tp_clear = 51;
    pub const tp_dealloc = 52;
    pub const tp_descr_get = 54;
    pub const tp_doc = 56;
    pub const tp_iter = 62;
    pub const tp_iternext = 63;
    pub const tp_methods = 64;
    pub const tp_new = 65;
    pub const tp_repr = 66;
    pub const tp_traverse = 71;
    pub const tp_members = 72;
    pub const tp_getset = 73;
    pub const tp_free = 74;
    pub const tp_finalize = 80;
    pub const mod_exec = 2;
};

/// The slots of a type by their names, each with its type.
pub const Slots = struct {
    nb_bool: ?*const fn (*Object) callconv(.c) c_int = null,
    sq_length: ?*const fn (*Object) callconv(.c) Ssize = null,
    tp_call: ?*const fn (*Object, *Object, ?*Object) callconv(.c) ?*Object = null,
    tp_clear: ?*const fn (*Object) callconv(.c) c_int = null,
    tp_dealloc: ?*const fn (*Object) callconv(.c) void = null,
    tp_descr_get: ?*const fn (*Object, ?*Object, ?*Object) callconv(.c) ?*Object = null,
    tp_doc: ?[*:0]const u8 = null,
    tp_finalize: ?*const fn (*Object) callconv(.c) void = null,
    tp_free: ?*const fn (?*anyopaque) callconv(.c) void = null,
    tp_getset: ?[*]const GetSetDef = null,
    tp_iter: ?*const fn (*Object) callconv(.c) ?*Object = null,
    tp_iternext: ?*const fn (*Object) callconv(.c) ?*Object = null,
    tp_members: ?[*]const MemberDef = null,
    tp_methods: ?[*]const MethodDef = null,
    tp_new: ?*const fn (*Type, *Object, ?*Object) callconv(.c) ?*Object = null,
    tp_repr: ?*const fn (*Object) callconv(.c) ?*Object = null,
    tp_traverse: ?*const fn (*Object, Visit, ?*anyopaque) callconv(.c) c_int = null,

    /// Those that are not null, with the end mark.
    pub fn table(comptime slots: Slots) [*]const Slot {
        comptime var all: []const Slot = &.{};
        inline for (@typeInfo(Slots).@"struct".field_names) |name| {
            if (@field(slots, name)) |value|
                all = all ++ .{Slot{ .slot = @field(slot, name), .pfunc = value }};
        }
        const final = all ++ .{Slot{}};
        return final.ptr;
    }
};

/// What a type has there.
pub fn getSlot(t: *Type, comptime name: []const u8) @FieldType(Slots, name) {
    return @ptrCast(@alignCast(PyType_GetSlot(t, @field(slot, name))));
}

/// Puts `new` where the type object has `old`, if it has. The place is found by what is in it.
pub fn replaceSlot(
    t: *Type,
    comptime name: []const u8,
    old: @FieldType(Slots, name),
    new: @FieldType(Slots, name),
) void {
    const words: [*]@FieldType(Slots, name) = @ptrCast(@alignCast(t));
    for (words[0..words_of_a_type]) |*word| if (word.* == old) {
        word.* = new;
    };
}

/// The slots of a type object's own, the others follow it.
const words_of_a_type = 50;

/// Of a module that `exec` fills; that says by -1 that an exception is set.
pub fn moduleSlots(comptime exec: *const fn (*Object) callconv(.c) c_int) [2]Slot {
    return .{ .{ .slot = slot.mod_exec, .pfunc = exec }, .{} };
}

pub const ModuleDef = extern struct {
    base: extern struct {
        ob: extern struct { refcnt: isize = 1, type: ?*Type = null } = .{},
        init: ?*anyopaque = null,
        index: Ssize = 0,
        copy: ?*Object = null,
    } = .{},
    name: [*:0]const u8,
    doc: ?[*:0]const u8 = null,
    size: Ssize = 0,
    methods: ?[*]const MethodDef = null,
    slots: ?[*]const Slot = null,
    traverse: ?*anyopaque = null,
    clear: ?*anyopaque = null,
    free: ?*anyopaque = null,
};

pub extern var _Py_NoneStruct: Object;
pub extern var _Py_TrueStruct: Object;
pub extern var _Py_FalseStruct: Object;
pub extern var PyExc_RuntimeError: *Object;
pub extern var PyExc_ValueError: *Object;
pub extern var PyExc_TypeError: *Object;
pub extern var PyExc_OverflowError: *Object;
pub extern var PyExc_MemoryError: *Object;
pub extern var PyExc_KeyboardInterrupt: *Object;
pub extern var PyExc_SystemExit: *Object;
pub extern var PyExc_OSError: *Object;
pub extern var PyExc_BaseException: *Object;
pub extern var PyExc_ImportError: *Object;
pub extern var PyExc_AttributeError: *Object;
pub extern var PyExc_RecursionError: *Object;

pub inline fn none() *Object {
    return &_Py_NoneStruct;
}
pub inline fn returnNone() *Object {
    return incref(&_Py_NoneStruct);
}
pub inline fn true_() *Object {
    return &_Py_TrueStruct;
}
pub inline fn false_() *Object {
    return &_Py_FalseStruct;
}
pub inline fn boolean(b: bool) *Object {
    return incref(if (b) &_Py_TrueStruct else &_Py_FalseStruct);
}
pub inline fn isTrue(o: *Object) bool {
    return o == &_Py_TrueStruct;
}

pub const exc = struct {
    pub inline fn runtimeError() *Object {
        return PyExc_RuntimeError;
    }
    pub inline fn valueError() *Object {
        return PyExc_ValueError;
    }
    pub inline fn typeError() *Object {
        return PyExc_TypeError;
    }
    pub inline fn overflowError() *Object {
        return PyExc_OverflowError;
    }
    pub inline fn memoryError() *Object {
        return PyExc_MemoryError;
    }
    pub inline fn keyboardInterrupt() *Object {
        return PyExc_KeyboardInterrupt;
    }
    pub inline fn systemExit() *Object {
        return PyExc_SystemExit;
    }
    pub inline fn osError() *Object {
        return PyExc_OSError;
    }
    pub inline fn baseException() *Object {
        return PyExc_BaseException;
    }
    pub inline fn importError() *Object {
        return PyExc_ImportError;
    }
    pub inline fn attributeError() *Object {
        return PyExc_AttributeError;
    }
    pub inline fn recursionError() *Object {
        return PyExc_RecursionError;
    }
};

pub extern fn _Py_Dealloc(*Object) void;
pub extern fn PyEval_SaveThread() ?*ThreadState;
pub extern fn PyEval_RestoreThread(*ThreadState) void;
pub extern fn PyThreadState_New(*Interpreter) ?*ThreadState;
pub extern fn PyThreadState_Clear(*ThreadState) void;
pub extern fn PyThreadState_Delete(*ThreadState) void;
pub extern fn PyThreadState_DeleteCurrent() void;
pub extern fn PyThreadState_Get() *ThreadState;
pub extern fn PyThreadState_Swap(?*ThreadState) ?*ThreadState;
pub extern fn PyThreadState_GetDict() ?*Object;
pub extern fn PyThreadState_SetAsyncExc(c_ulong, ?*Object) c_int;
pub extern fn PyThreadState_GetID(*ThreadState) u64;
pub extern fn PyThreadState_GetFrame(*ThreadState) ?*Frame;
pub extern fn PyInterpreterState_Get() *Interpreter;
pub extern fn PyGILState_GetThisThreadState() ?*ThreadState;
pub extern fn Py_MakePendingCalls() c_int;
pub extern fn PyGILState_Ensure() c_int;
pub extern fn PyGILState_Release(c_int) void;
pub extern fn PyFrame_GetCode(*Frame) *Object;
pub extern fn PyFrame_GetLineNumber(*Frame) c_int;

pub extern fn PyErr_SetString(*Object, [*:0]const u8) void;
pub extern fn PyErr_Format(*Object, [*:0]const u8, ...) ?*Object;
pub extern fn PyErr_SetObject(*Object, ?*Object) void;
pub extern fn PyErr_SetNone(*Object) void;
pub extern fn PyErr_NoMemory() ?*Object;
pub extern fn PyErr_Occurred() ?*Object;
pub extern fn PyErr_Clear() void;
pub extern fn PyErr_Fetch(*?*Object, *?*Object, *?*Object) void;
pub extern fn PyErr_Restore(?*Object, ?*Object, ?*Object) void;
pub extern fn PyErr_NormalizeException(*?*Object, *?*Object, *?*Object) void;
pub extern fn PyErr_ExceptionMatches(*Object) c_int;
pub extern fn PyErr_GivenExceptionMatches(?*Object, *Object) c_int;
pub extern fn PyErr_WriteUnraisable(?*Object) void;
pub extern fn PyErr_CheckSignals() c_int;
pub extern fn PyErr_SetInterruptEx(signum: c_int) c_int;
pub extern fn PyErr_SetFromErrno(*Object) ?*Object;
pub extern fn PyException_SetTraceback(*Object, *Object) c_int;
pub extern fn PyException_GetContext(*Object) ?*Object;
pub extern fn PyException_GetTraceback(*Object) ?*Object;
pub extern fn PyException_SetCause(*Object, ?*Object) void;
pub extern fn PyException_SetContext(*Object, ?*Object) void;
pub extern fn Py_EnterRecursiveCall([*:0]const u8) c_int;
pub extern fn Py_LeaveRecursiveCall() void;
pub extern fn Py_AddPendingCall(*const fn (?*anyopaque) callconv(.c) c_int, ?*anyopaque) c_int;

pub extern fn PyObject_Call(*Object, *Object, ?*Object) ?*Object;
pub extern fn PyObject_CallObject(*Object, ?*Object) ?*Object;
pub extern fn PyObject_CallFunctionObjArgs(*Object, ...) ?*Object;
pub extern fn PyObject_GetAttrString(*Object, [*:0]const u8) ?*Object;
pub extern fn PyObject_SetAttrString(*Object, [*:0]const u8, *Object) c_int;
pub extern fn PyObject_IsInstance(*Object, *Object) c_int;
pub extern fn PyObject_IsTrue(*Object) c_int;
pub extern fn PySequence_Contains(*Object, *Object) c_int;
pub extern fn PyObject_RichCompareBool(*Object, *Object, c_int) c_int;
pub extern fn PyObject_Str(*Object) ?*Object;
pub extern fn PyObject_Size(*Object) Ssize;
pub extern fn PyObject_ClearWeakRefs(*Object) void;
pub extern fn PyObject_Free(?*anyopaque) void;
pub extern fn PyObject_Init(*Object, *Type) ?*Object;
pub extern fn PyObject_GC_Track(*Object) void;
pub extern fn PyObject_GC_UnTrack(*Object) void;
pub extern fn PyObject_GC_IsTracked(*Object) c_int;
pub extern fn PyObject_GC_Del(*Object) void;
pub extern fn PyObject_GenericGetAttr(*Object, *Object) ?*Object;
pub extern fn PyObject_HasAttrString(*Object, [*:0]const u8) c_int;
pub extern fn _PyObject_GC_New(*Type) ?*Object;
pub extern fn _PyObject_New(*Type) ?*Object;
pub extern fn PyCFunction_GetFunction(*Object) ?*const anyopaque;
pub extern fn PyCallable_Check(*Object) c_int;
pub extern fn PyType_FromModuleAndSpec(*Object, *const TypeSpec, ?*Object) ?*Object;
pub extern fn PyType_GenericAlloc(*Type, Ssize) ?*Object;
pub extern fn PyType_IsSubtype(*Type, *Type) c_int;
pub extern fn PyType_GetFlags(*Type) c_ulong;
pub extern fn PyCFunction_NewEx(*MethodDef, ?*Object, ?*Object) ?*Object;
pub extern fn PyType_GetSlot(*Type, c_int) ?*anyopaque;

pub extern fn PyModuleDef_Init(*ModuleDef) ?*Object;
pub extern fn PyModule_GetDict(*Object) ?*Object;
pub extern fn PyModule_GetDef(*Object) ?*ModuleDef;
pub extern fn PyImport_GetModuleDict() ?*Object;
pub extern fn PyModule_AddObjectRef(*Object, [*:0]const u8, *Object) c_int;
pub extern fn PyImport_ImportModule([*:0]const u8) ?*Object;
pub extern fn PyCMethod_New(*const MethodDef, ?*Object, ?*Object, ?*Type) ?*Object;

pub extern fn PyLong_FromLongLong(c_longlong) ?*Object;
pub extern fn PyLong_FromUnsignedLongLong(c_ulonglong) ?*Object;
pub extern fn PyLong_AsLongLong(*Object) c_longlong;
pub extern fn PyLong_AsUnsignedLongLong(*Object) c_ulonglong;
pub extern fn PyLong_AsUnsignedLongLongMask(*Object) c_ulonglong;
pub extern fn PyLong_AsSsize_t(*Object) Ssize;
pub extern fn PyNumber_AsSsize_t(*Object, ?*Object) Ssize;
pub extern fn PyNumber_Index(*Object) ?*Object;
pub extern fn PyFloat_FromDouble(f64) ?*Object;
pub extern fn PyFloat_AsDouble(*Object) f64;
pub extern fn PyUnicode_FromString([*:0]const u8) ?*Object;
pub extern fn PyUnicode_FromStringAndSize([*]const u8, Ssize) ?*Object;
pub extern fn PyUnicode_FromFormat([*:0]const u8, ...) ?*Object;
pub extern fn PyUnicode_InternFromString([*:0]const u8) ?*Object;
pub extern fn PyUnicode_CompareWithASCIIString(*Object, [*:0]const u8) c_int;
pub extern fn PyUnicode_AsUTF8AndSize(*Object, *Ssize) ?[*]const u8;
pub extern fn PyBytes_FromStringAndSize(?[*]const u8, Ssize) ?*Object;
pub extern fn PyUnicode_DecodeFSDefaultAndSize([*]const u8, Ssize) ?*Object;
pub extern fn PyBytes_Size(*Object) Ssize;
pub extern fn PyBytes_AsString(*Object) ?[*]u8;
pub extern fn PyTuple_New(Ssize) ?*Object;
pub extern fn PyTuple_Size(*Object) Ssize;
pub extern fn PyTuple_GetItem(*Object, Ssize) ?*Object;
pub extern fn PyTuple_SetItem(*Object, Ssize, *Object) c_int;
pub extern fn PyTuple_Pack(Ssize, ...) ?*Object;
pub extern fn PyList_New(Ssize) ?*Object;
pub extern fn PyList_Append(*Object, *Object) c_int;
pub extern var PyFloat_Type: Type;
pub extern fn PyObject_AsFileDescriptor(*Object) c_int;
pub extern fn PyList_Size(*Object) Ssize;
pub extern fn PyList_GetItem(*Object, Ssize) ?*Object;
pub extern fn PyDict_New() ?*Object;
pub extern fn PyDict_Size(*Object) Ssize;
pub extern fn PyDict_Clear(*Object) void;
pub extern fn PyDict_GetItemString(*Object, [*:0]const u8) ?*Object;
pub extern fn PyDict_GetItemWithError(*Object, *Object) ?*Object;
pub extern fn PyDict_SetItem(*Object, *Object, *Object) c_int;
pub extern fn PyDict_DelItem(*Object, *Object) c_int;
pub extern fn PyDict_SetItemString(*Object, [*:0]const u8, *Object) c_int;
pub extern fn PyDict_Next(*Object, *Ssize, *?*Object, *?*Object) c_int;
pub extern fn PyGC_Disable() c_int;
pub extern fn PyGC_Enable() c_int;
pub extern fn Py_Exit(c_int) noreturn;
pub extern fn PyThread_get_thread_ident() c_ulong;
pub extern fn PyThread_acquire_lock(*anyopaque, c_int) c_int;
pub extern fn PyThread_release_lock(*anyopaque) void;
pub extern fn PySys_SetObject([*:0]const u8, ?*Object) c_int;
pub extern fn PyCapsule_New(
    *anyopaque,
    [*:0]const u8,
    ?*const fn (?*Object) callconv(.c) void,
) ?*Object;
pub extern fn PySys_GetObject([*:0]const u8) ?*Object;

pub const Buffer = extern struct {
    buf: ?[*]u8,
    obj: ?*Object,
    len: Ssize,
    itemsize: Ssize,
    readonly: c_int,
    ndim: c_int,
    format: ?[*:0]u8,
    shape: ?[*]Ssize,
    strides: ?[*]Ssize,
    suboffsets: ?[*]Ssize,
    internal: ?*anyopaque,
};
pub extern fn PyObject_GetBuffer(*Object, *Buffer, c_int) c_int;
pub extern fn PyBuffer_Release(*Buffer) void;
pub const PyBUF_SIMPLE = 0;
pub const PyBUF_WRITABLE = 1;

comptime {
    if (builtin.os.tag != .windows) asm (weakReferences());
}

/// Makes the references to all that is declared above weak ones: a symbol that is not there is then
/// null, instead of keeping the library from being loaded or a program from being linked with it.
/// Zig's `extern` cannot say so. On Windows an import is what it is: python3.dll has to be there.
fn weakReferences() []const u8 {
    const directive, const prefix = if (builtin.os.tag == .macos)
        .{ ".weak_reference", "_" }
    else
        .{ ".weak", "" };
    var text: []const u8 = "";
    @setEvalBranchQuota(100_000);
    for (@typeInfo(@This()).@"struct".decl_names) |name| {
        if (!std.mem.startsWith(u8, std.mem.trimStart(u8, name, "_"), "Py")) continue;
        if (@TypeOf(@field(@This(), name)) == comptime_int) continue; // a #define
        text = text ++ directive ++ " " ++ prefix ++ name ++ "\n";
    }
    return text;
}

/// PyMemAllocatorEx.
pub const Allocator = extern struct {
    ctx: ?*anyopaque,
    malloc: ?*const anyopaque,
    calloc: *const fn (?*anyopaque, usize, usize) callconv(.c) ?*anyopaque,
    realloc: ?*const anyopaque,
    free: ?*const anyopaque,
};
pub const PYMEM_DOMAIN_RAW = 0;

pub const ArenaAllocator = extern struct {
    context: ?*anyopaque,
    alloc: *const fn (?*anyopaque, usize) callconv(.c) ?*anyopaque,
    free: *const fn (?*anyopaque, ?*anyopaque, usize) callconv(.c) void,
};

/// PyDict_WatchCallback: called before a dict changes. 3.12+.
pub const DictWatcher = *const fn (c_int, ?*Object, ?*Object, ?*Object) callconv(.c) c_int;

/// Functions outside the stable ABI of 3.11. All but the optional ones exist in 3.11 to 3.15.
pub const Extra = struct {
    PyObject_Vectorcall: *const fn (
        *Object,
        ?[*]const *Object,
        usize,
        ?*Object,
    ) callconv(.c) ?*Object,
    PyVectorcall_Call: *const fn (*Object, *Object, ?*Object) callconv(.c) ?*Object,
    PyContext_CopyCurrent: *const fn () callconv(.c) ?*Object,
    PyContext_Enter: *const fn (*Object) callconv(.c) c_int,
    PyContext_Exit: *const fn (*Object) callconv(.c) c_int,
    PyEval_SetTrace: *const fn (?TraceFunction, ?*Object) callconv(.c) void,
    PyFunction_GetCode: *const fn (*Object) callconv(.c) ?*Object,
    PyEval_SetProfile: *const fn (?TraceFunction, ?*Object) callconv(.c) void,
    PyFrame_GetBack: *const fn (*Frame) callconv(.c) ?*Frame,
    PyFrame_GetLasti: *const fn (*Frame) callconv(.c) c_int,
    PyInterpreterState_ThreadHead: *const fn (*Interpreter) callconv(.c) ?*ThreadState,
    PyThreadState_Next: *const fn (*ThreadState) callconv(.c) ?*ThreadState,
    PySys_AddAuditHook: *const fn (
        *const fn ([*:0]const u8, *Object, ?*anyopaque) callconv(.c) c_int,
        ?*anyopaque,
    ) callconv(.c) c_int,
    PyCode_Addr2Line: *const fn (*Object, c_int) callconv(.c) c_int,
    _PyBytes_Resize: *const fn (*?*Object, Ssize) callconv(.c) c_int,
    _PyEval_AddPendingCall: ?*const anyopaque,
    PyThreadState_EnterTracing: ?*const fn (*ThreadState) callconv(.c) void,
    PyThreadState_LeaveTracing: ?*const fn (*ThreadState) callconv(.c) void,
    _PyEval_SetTrace: ?*const fn (*ThreadState, ?TraceFunction, ?*Object) callconv(.c) c_int,
    _Py_IsFinalizing: ?*const fn () callconv(.c) c_int,
    Py_IsFinalizing: ?*const fn () callconv(.c) c_int,
    _PyThreadState_UncheckedGet: ?*const fn () callconv(.c) ?*ThreadState,
    _Py_DumpTraceback: ?*const fn (c_int, *ThreadState) callconv(.c) void,
    PyThreadState_GetUnchecked: ?*const fn () callconv(.c) ?*ThreadState,
    PyGILState_Check: *const fn () callconv(.c) c_int,
    PyUnstable_ThreadState_SetStackProtection: ?*const fn (
        *ThreadState,
        *anyopaque,
        usize,
    ) callconv(.c) c_int,
    PyUnstable_ThreadState_ResetStackProtection: ?*const fn (*ThreadState) callconv(.c) void,
    PyMutex_Unlock: ?*const fn (*u8) callconv(.c) void,
    PyMem_GetAllocator: ?*const fn (c_int, *Allocator) callconv(.c) void,
    PyMem_SetAllocator: ?*const fn (c_int, *const Allocator) callconv(.c) void,
    PyObject_GetArenaAllocator: ?*const fn (*ArenaAllocator) callconv(.c) void,
    PyObject_SetArenaAllocator: ?*const fn (*const ArenaAllocator) callconv(.c) void,
    PyVectorcall_Function: ?*const fn (*Object) callconv(.c) ?*anyopaque,
    _PyType_Lookup: ?*const fn (*Type, *Object) callconv(.c) ?*Object,
    PyDict_AddWatcher: ?*const fn (DictWatcher) callconv(.c) c_int,
    PySys_Audit: ?*const fn ([*:0]const u8, [*:0]const u8, ...) callconv(.c) c_int,
    _PyErr_WriteUnraisableMsg: ?*const fn ([*:0]const u8, *Object) callconv(.c) void,
    PyErr_FormatUnraisable: ?*const fn ([*:0]const u8, ...) callconv(.c) void,
    PyDict_Watch: ?*const fn (c_int, *Object) callconv(.c) c_int,

    pub fn load(self: *Extra) ?[:0]const u8 {
        inline for (
            @typeInfo(Extra).@"struct".field_names,
            @typeInfo(Extra).@"struct".field_types,
        ) |field_name, T| {
            const address = os.symbol(field_name ++ "");
            if (@typeInfo(T) == .optional) {
                @field(self, field_name) = @ptrCast(@alignCast(address));
            } else {
                @field(self, field_name) = @ptrCast(@alignCast(address orelse return field_name));
            }
        }
        return null;
    }
};

pub var extra: Extra = undefined;
/// 0x030b07f0 for 3.11.7.
pub var version: u32 = 0;
pub extern const Py_Version: c_ulong;

pub fn loadVersion() void {
    version = @intCast(Py_Version);
}

pub inline fn minor() u32 {
    return (version >> 16) & 0xff;
}

/// Immortal objects (3.12+) have a negative low half; nothing else does.
inline fn immortal(o: *Object) bool {
    return @as(i32, @truncate(o.refcnt)) < 0;
}

/// An immortal object's is larger than any that is counted.
pub inline fn refcount(o: *Object) isize {
    return if (immortal(o)) std.math.maxInt(isize) else o.refcnt;
}

pub inline fn incref(o: *Object) *Object {
    if (!immortal(o)) o.refcnt += 1;
    return o;
}

pub inline fn decref(o: *Object) void {
    if (immortal(o)) return;
    o.refcnt -= 1;
    // 3.14 keeps flags in the upper half.
    if (@as(i32, @truncate(o.refcnt)) == 0) _Py_Dealloc(o);
}

pub inline fn xdecref(o: ?*Object) void {
    if (o) |x| decref(x);
}

/// Ends a dealloc: frees the memory the way its type, maybe a subclass, allocated it, and drops the
/// type.
pub fn freeObject(o: *Object) void {
    const t = o.type;
    getSlot(t, "tp_free").?(o);
    decref(&t.ob);
}

/// Clears the field before it drops the reference, as Py_CLEAR.
pub inline fn clear(field: *?*Object) void {
    const old = field.*;
    field.* = null;
    xdecref(old);
}

pub inline fn typeOf(o: *Object) *Type {
    return o.type;
}

pub inline fn call(callable: *Object, args: []const *Object) ?*Object {
    return extra.PyObject_Vectorcall(callable, args.ptr, args.len, null);
}

/// Raises `kind` with a formatted message; returns null for the caller to return.
pub fn raise(kind: *Object, comptime format: []const u8, args: anytype) ?*Object {
    @branchHint(.cold);
    var buffer: [512]u8 = undefined;
    const text = std.fmt.bufPrintSentinel(&buffer, format, args, 0) catch blk: {
        buffer[buffer.len - 1] = 0;
        break :blk buffer[0 .. buffer.len - 1 :0];
    };
    PyErr_SetString(kind, text.ptr);
    return null;
}

/// As `raise`, for those that say by false that an exception is set.
pub fn raises(kind: *Object, comptime format: []const u8, args: anytype) bool {
    _ = raise(kind, format, args);
    return false;
}

/// A str.
pub fn print(comptime format: []const u8, args: anytype) ?*Object {
    var buffer: [512]u8 = undefined;
    const text = std.fmt.bufPrint(&buffer, format, args) catch &buffer;
    return PyUnicode_FromStringAndSize(text.ptr, @intCast(text.len));
}

/// (value, ok); takes the reference to `value`.
pub fn pair(value: *Object, ok: bool) ?*Object {
    defer decref(value);
    const flag = boolean(ok);
    defer decref(flag);
    return PyTuple_Pack(2, value, flag);
}

/// An OSError of the number's class.
pub fn raiseOs(number: c_int, text: [:0]const u8) ?*Object {
    const code = PyLong_FromLongLong(number) orelse return null;
    defer decref(code);
    const message = PyUnicode_FromString(text) orelse return null;
    defer decref(message);
    const args = PyTuple_Pack(2, code, message) orelse return null;
    defer decref(args);
    PyErr_SetObject(exc.osError(), args);
    return null;
}

/// The raised exception, normalized and with its traceback, as a new reference; clears it.
pub fn takeException() ?*Object {
    var t: ?*Object = null;
    var v: ?*Object = null;
    var tb: ?*Object = null;
    PyErr_Fetch(&t, &v, &tb);
    if (t == null) return null;
    PyErr_NormalizeException(&t, &v, &tb);
    if (tb) |traceback| {
        _ = PyException_SetTraceback(v.?, traceback);
        decref(traceback);
    }
    decref(t.?);
    return v;
}

/// Raises an exception object; takes the reference.
pub fn restoreException(value: *Object) void {
    PyErr_Restore(incref(@ptrCast(value.type)), value, PyException_GetTraceback(value));
}

var function_type: ?*Type = null;
var code_type: ?*Type = null;
var frame_type: ?*Type = null;
var builtin_type: ?*Type = null;
var descriptor_type: ?*Type = null;

/// Finds the types of functions and code objects. False with an exception set.
pub fn loadTypes() bool {
    builtin_type = @ptrCast(importFrom("types", "BuiltinFunctionType") orelse return false);
    descriptor_type = @ptrCast(importFrom("types", "MethodDescriptorType") orelse return false);
    function_type = @ptrCast(importFrom("types", "FunctionType") orelse return false);
    code_type = @ptrCast(importFrom("types", "CodeType") orelse return false);
    frame_type = @ptrCast(importFrom("types", "FrameType") orelse return false);
    return true;
}

/// Exactly a Python function.
pub inline fn isFunction(o: *Object) bool {
    return o.type == function_type;
}

/// A function of C code's, in a module or bound to an object.
pub inline fn isBuiltinFunction(o: *Object) bool {
    return o.type == builtin_type;
}

/// A method of C code's, in a type.
pub inline fn isMethodDescriptor(o: *Object) bool {
    return o.type == descriptor_type;
}

pub inline fn isCode(o: *Object) bool {
    return o.type == code_type;
}

pub inline fn isFrame(o: *Object) bool {
    return o.type == frame_type;
}

pub inline fn isTuple(o: *Object) bool {
    return PyType_GetFlags(o.type) & (1 << 26) != 0; // Py_TPFLAGS_TUPLE_SUBCLASS
}

/// Whether it is an exception object.
pub inline fn isException(o: *Object) bool {
    return PyType_GetFlags(o.type) & (1 << 30) != 0; // Py_TPFLAGS_BASE_EXC_SUBCLASS
}

pub inline fn isType(o: *Object) bool {
    return PyType_GetFlags(o.type) & (1 << 31) != 0; // Py_TPFLAGS_TYPE_SUBCLASS
}

pub inline fn isList(o: *Object) bool {
    return PyType_GetFlags(o.type) & (1 << 25) != 0; // Py_TPFLAGS_LIST_SUBCLASS
}

pub inline fn isStr(o: *Object) bool {
    return PyType_GetFlags(o.type) & (1 << 28) != 0; // Py_TPFLAGS_UNICODE_SUBCLASS
}

pub inline fn isDict(o: *Object) bool {
    return PyType_GetFlags(o.type) & (1 << 29) != 0; // Py_TPFLAGS_DICT_SUBCLASS
}

/// Whether it is a class of exceptions.
pub fn isExceptionClass(o: *Object) bool {
    return isType(o) and PyErr_GivenExceptionMatches(o, exc.baseException()) != 0;
}

pub fn isInt(o: *Object) bool {
    return PyType_GetFlags(o.type) & (1 << 24) != 0; // Py_TPFLAGS_LONG_SUBCLASS
}

/// An int that a T can be; null for anything else. No exception is set.
pub fn intIn(comptime T: type, o: *Object) ?T {
    if (!isInt(o)) return null;
    const value = PyLong_AsLongLong(o);
    if (value != -1 or PyErr_Occurred() == null) return std.math.cast(T, value);
    PyErr_Clear();
    return null;
}

pub fn isFloat(o: *Object) bool {
    return o.type == &PyFloat_Type or PyType_IsSubtype(o.type, &PyFloat_Type) != 0;
}

/// `from module import name`: a new reference, null with an exception set.
pub fn importFrom(module: [*:0]const u8, name: [*:0]const u8) ?*Object {
    const m = PyImport_ImportModule(module) orelse return null;
    defer decref(m);
    return PyObject_GetAttrString(m, name);
}

/// Sets one key of a dict to an integer; false with an exception set.
pub fn setInt(dict: *Object, key: [*:0]const u8, value: u64) bool {
    const o = PyLong_FromUnsignedLongLong(value) orelse return false;
    defer decref(o);
    return PyDict_SetItemString(dict, key, o) == 0;
}

pub fn setText(dict: *Object, key: [*:0]const u8, value: [*:0]const u8) bool {
    const o = PyUnicode_FromString(value) orelse return false;
    defer decref(o);
    return PyDict_SetItemString(dict, key, o) == 0;
}
