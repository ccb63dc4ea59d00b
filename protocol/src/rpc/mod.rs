//! DCE/RPC over named pipes: MS-RPCE, MS-SRVS, MS-WKST.
