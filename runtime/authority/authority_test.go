package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"carboy/runtime/proxy/policy"
)

func made(t *testing.T, bound time.Duration, hosts ...string) (*Authority, *x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	var all []policy.Pattern
	for _, h := range hosts {
		p, err := policy.ParsePattern(h)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	a, err := New("one (abcdefghij)", all, bound)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(a.Certificate, a.Key)
	if err != nil {
		t.Fatal(err)
	}
	return a, pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
}

func TestCertificate(t *testing.T) {
	a, c, key := made(t, 0, "a.test")
	if !c.IsCA || !c.BasicConstraintsValid || c.MaxPathLen != 0 || !c.MaxPathLenZero || c.KeyUsage != x509.KeyUsageCertSign {
		t.Errorf("not an authority for leaves alone: %+v", c)
	}
	if len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth || len(c.UnknownExtKeyUsage) != 0 {
		t.Errorf("usages %v", c.ExtKeyUsage)
	}
	if key.Curve != elliptic.P256() || c.SerialNumber.Sign() <= 0 {
		t.Errorf("curve %v, serial number %v", key.Curve.Params().Name, c.SerialNumber)
	}
	block, rest := pem.Decode(a.Key)
	if block.Type != "EC PRIVATE KEY" || len(rest) > 0 {
		t.Errorf("the key is a %s", block.Type)
	}
	if sum := sha256.Sum256(c.Raw); a.Fingerprint != hex.EncodeToString(sum[:]) {
		t.Errorf("fingerprint %s", a.Fingerprint)
	}
	if _, other, _ := made(t, 0, "a.test"); other.SerialNumber.Cmp(c.SerialNumber) == 0 || other.PublicKey.(*ecdsa.PublicKey).Equal(c.PublicKey) {
		t.Error("two bottles share a key or a serial number")
	}
}

func TestLife(t *testing.T) {
	for bound, want := range map[time.Duration]time.Duration{
		time.Minute: 24 * time.Hour, 23 * time.Hour: 24 * time.Hour, 48 * time.Hour: 49 * time.Hour, 0: longest,
	} {
		_, c, _ := made(t, bound, "a.test")
		if left := time.Until(c.NotAfter); left > want || left < want-time.Minute {
			t.Errorf("bottle of %v: %v, want %v", bound, left, want)
		}
		if c.NotBefore.After(time.Now().Add(-time.Minute)) {
			t.Errorf("valid only from %v", c.NotBefore)
		}
	}
}

// leaf is made as pipelock makes it (v2.3.0, internal/certgen).
func leaf(t *testing.T, ca *x509.Certificate, key *ecdsa.PrivateKey, host string, isCA bool) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA: isCA, BasicConstraintsValid: isCA,
	}
	if ip := net.ParseIP(host); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

func verify(ca, c *x509.Certificate, host string, usage x509.ExtKeyUsage, between ...*x509.Certificate) error {
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: host, KeyUsages: []x509.ExtKeyUsage{usage}}
	o.Roots.AddCert(ca)
	for _, b := range between {
		o.Intermediates.AddCert(b)
	}
	_, err := c.Verify(o)
	return err
}

func TestNothingButTheInterceptedHosts(t *testing.T) {
	for _, tt := range []struct {
		hosts, good, bad string
	}{
		{"a.test *.b.test:8443", "a.test x.b.test x.y.b.test", "c.test xa.test test 10.1.2.3"},
		{"10.1.2.3", "10.1.2.3", "10.1.2.4 a.test"},
		{"a.test 10.1.2.3", "a.test 10.1.2.3", "10.1.2.4 b.test"},
	} {
		_, ca, key := made(t, 0, strings.Fields(tt.hosts)...)
		for host := range strings.FieldsSeq(tt.good) {
			if err := verify(ca, leaf(t, ca, key, host, false), host, x509.ExtKeyUsageServerAuth); err != nil {
				t.Errorf("%s: %s: %v", tt.hosts, host, err)
			}
		}
		for host := range strings.FieldsSeq(tt.bad) {
			if verify(ca, leaf(t, ca, key, host, false), host, x509.ExtKeyUsageServerAuth) == nil {
				t.Errorf("%s: a certificate for %s is good", tt.hosts, host)
			}
		}
	}
}

func TestServersAlone(t *testing.T) {
	_, ca, key := made(t, 0, "a.test")
	good := leaf(t, ca, key, "a.test", false)
	if err := verify(ca, good, "a.test", x509.ExtKeyUsageServerAuth); err != nil {
		t.Fatalf("control: %v", err)
	}
	if verify(ca, good, "a.test", x509.ExtKeyUsageClientAuth) == nil {
		t.Error("it makes clients known")
	}
	if verify(ca, leaf(t, leaf(t, ca, key, "a.test", true), key, "a.test", false), "a.test", x509.ExtKeyUsageServerAuth, leaf(t, ca, key, "a.test", true)) == nil {
		t.Error("it makes authorities")
	}
}
