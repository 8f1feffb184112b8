"""What may be stored and shown of a URL."""

from __future__ import annotations

import pytest

from lookalike.uris import redacted, without_secrets

KEY = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4=="
SAS = (
    "sv=2024-11-04&ss=b&srt=sco&sp=rl&se=2030-01-01T00:00:00Z&st=2024-01-01&spr=https&sip=1.2.3.4&sr=c&skoid=a&sktid=b"
    "&skt=c&ske=d&sks=b&skv=e&scid=f&saoid=g&suoid=h&sdd=2&si=policy&rscc=a&rscd=b&rsce=c&rscl=d&rsct=e&sig=S3CRET%3D"
)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://x.example/a.jpg", "https://x.example/a.jpg"),
        ("https://x.example/a.jpg?id=17", "https://x.example/a.jpg?id=17"),
        ("https://x.example/a%20b.jpg?b=%41&a=&c&&d=1;e=2", "https://x.example/a%20b.jpg?b=%41&a=&c&&d=1;e=2"),
        ("https://u:S3CRET@x.example:8443/a.jpg", "https://x.example:8443/a.jpg"),
        ("https://S3CRET@x.example/a.jpg#S3CRET", "https://x.example/a.jpg"),
        ("https://u:S3@CRET@x.example/a@b.jpg", "https://x.example/a@b.jpg"),
        ("https://u:S3/CRET@x.example/a.jpg", "https://x.example/a.jpg"),
        ("https://[::1]:80/a@b.jpg", "https://[::1]:80/a@b.jpg"),
        ("HTTPS://U:S3CRET@X.example/A", "HTTPS://X.example/A"),
        (f"https://a.blob.core.windows.net/c/p.jpg?{SAS}", "https://a.blob.core.windows.net/c/p.jpg"),
        (f"https://a.blob.core.windows.net/c/p.jpg?versionid=7&{SAS}&id=2", None),
        (f"https://a.blob.core.windows.net/c/p.jpg?{SAS.upper()}", "https://a.blob.core.windows.net/c/p.jpg"),
        ("https://x.example/?sp=3&st=4&sv=5", "https://x.example/?sp=3&st=4&sv=5"),
        ("https://x.example/a?%73ig=S3CRET&id=1", "https://x.example/a?id=1"),
        (
            "https://b.s3.amazonaws.com/k?X-Amz-Signature=S3CRET&x-amz-date=S3CRET&v=1",
            "https://b.s3.amazonaws.com/k?v=1",
        ),
        (
            "https://b.s3.amazonaws.com/k?AWSAccessKeyId=S3CRET&Signature=S3CRET&Expires=17",
            "https://b.s3.amazonaws.com/k",
        ),
        ("https://storage.googleapis.com/b/k?X-Goog-Credential=S3CRET", "https://storage.googleapis.com/b/k"),
        ("https://d.cloudfront.net/k?Expires=1&Signature=S3CRET&Key-Pair-Id=S3CRET", "https://d.cloudfront.net/k"),
        ("https://d.cloudfront.net/k?Policy=S3CRET&Signature=S3CRET&Key-Pair-Id=S", "https://d.cloudfront.net/k"),
        ("https://x.example/k?policy=public&expires=never", "https://x.example/k?policy=public&expires=never"),
        ("https://b.oss.aliyuncs.com/k?OSSAccessKeyId=S&Signature=S&Expires=1&security-token=S", None),
        (
            "https://x.example/?q=1&Token=S3CRET&access_token=S&api-key=S&subscription-key=S&r=2",
            "https://x.example/?q=1&r=2",
        ),
        ("https://x.example/?hmac=S&auth=S&password=S&secret=S&api_key=S&apikey=S", "https://x.example/"),
        ("https://x.example/?code=17&key=photos/1", "https://x.example/?code=17&key=photos/1"),
        (f"https://f.azurewebsites.net/api/p?id=1&code={KEY}", "https://f.azurewebsites.net/api/p?id=1"),
        (f"https://x.example/?id=1&key=AIza{'S' * 35}", "https://x.example/?id=1"),
        ("https://x.example/?tokens=3&designature=4", "https://x.example/?tokens=3&designature=4"),
        (
            "https://x.example/resize?url=https%3A%2F%2Fy.example%2Fa%3Fsig%3DS3CRET%26id%3D1&w=9",
            "https://x.example/resize?url=https%3A%2F%2Fy.example%2Fa%3Fid%3D1&w=9",
        ),
        ("abfs://photos@a.dfs.core.windows.net/x/a.jpg", "abfs://photos@a.dfs.core.windows.net/x/a.jpg"),
        ("abfs://photos/a #1.jpg", "abfs://photos/a #1.jpg"),
        ("abfs://photos/a?.jpg", "abfs://photos/a?.jpg"),
        (f"abfs://photos/a.jpg?{SAS}", "abfs://photos/a.jpg"),
        ("s3://KEY:S3CRET@bucket/a.jpg", "s3://bucket/a.jpg"),
        ("sftp://someone@host/a.jpg", "sftp://someone@host/a.jpg"),
        ("file:///a/b%3Fsig=x.jpg", "file:///a/b%3Fsig=x.jpg"),
        ("AccountName=a;AccountKey=S3CRET==;EndpointSuffix=x", "AccountName=a;AccountKey=…;EndpointSuffix=x"),
        ("photos/a.jpg", "photos/a.jpg"),
        ("file:///a/password=b.jpg", "file:///a/password=b.jpg"),
        ("", ""),
        ("https://", "https://"),
        ("https://[broken/a?sig=S3CRET", "https://[broken/a"),
    ],
)
def test_a_url_keeps_what_identifies_and_loses_what_opens(given: str, kept: str | None) -> None:
    found = without_secrets(given)
    assert "S3CRET" not in found
    assert KEY not in found
    if kept is not None:
        assert found == kept
    assert without_secrets(found) == found


def test_a_url_signed_anew_is_the_same_url() -> None:
    first = without_secrets("https://a.blob.core.windows.net/c/p.jpg?id=1&sv=1&se=2030&sig=abc")
    assert first == without_secrets("https://a.blob.core.windows.net/c/p.jpg?id=1&se=2031&sp=r&sv=2&sig=def")
    assert first == without_secrets("https://a.blob.core.windows.net/c/p.jpg?id=1")


@pytest.mark.parametrize(
    "text",
    [
        "cannot read https://u:S3CRET@x.example/a?sig=S3CRET&id=2 today",
        "HTTPSConnectionPool(host='a', port=443): Max retries exceeded with url: /c/p?sv=1&sig=S3CRET (Caused by x)",
        f"<https://a.blob.core.windows.net/c?{SAS}>, and 'https://b.example/?token=S3CRET'",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=S3CRET+/==;EndpointSuffix=core.windows.net",
        "BlobEndpoint=https://a.blob.core.windows.net;SharedAccessSignature=sv=1&sig=S3CRET&se=2",
        "Authorization: Bearer S3CRET",
        "{'Authorization': 'Bearer S3CRET.S3CRET'}",
        "Authorization: SharedKey account:S3CRET=",
        "the token was Bearer S3CRET, and it failed",
        "Ocp-Apim-Subscription-Key: S3CRET",
        "host=x password='S3CRET S3CRET' user=y",
        "postgresql://u:S3CRET@h/d",
        "got eyJS3CRETS3CRET.eyJS3CRETS3CRET.S3CRET-S3CRET",
    ],
)
def test_text_loses_its_secrets(text: str) -> None:
    found = redacted(text)
    assert "S3CRET" not in found
    assert redacted(found) == found


@pytest.mark.parametrize(
    "text", ["a bearer of news", "12 tokens = 3", "https://x.example/a?id=1 is no picture", "1 & 2?"]
)
def test_text_without_secrets_stays(text: str) -> None:
    assert redacted(text) == text
