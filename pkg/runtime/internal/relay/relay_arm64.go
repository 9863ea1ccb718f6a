// SPDX-License-Identifier: Apache-2.0

package relay

// restorerFlag is nothing: handlers return to the vDSO.
const restorerFlag = 0
